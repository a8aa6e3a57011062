use http::{HeaderName, Response, StatusCode};

use super::{
    Answer, ApiError, Context, Dialect, PollRequest, RequestView,
    answers::{AnswerExt, JSON, empty},
    azure,
    error::ErrorWords,
    object::Object,
};
use crate::operation::{BufferedBody, OperationId, OperationView, State};

/// The dialect of Azure Resource Manager (its RPC contract, *Asynchronous Operations*), for
/// the pollers of azure-core and azure-mgmt-core.
///
/// | request | answer |
/// | --- | --- |
/// | an accepted request | 202 without a body, `Azure-AsyncOperation` and `Location` |
/// | `GET …/{id}` (`Azure-AsyncOperation`) | 200: `id`, `name`, `status`, `startTime`, `endTime`, `percentComplete`, `properties` (the result) or `error` |
/// | `GET …/{id}/result` (`Location`) | 202 without a body; once it has succeeded, the recorded response; once it has failed, an error, 4xx |
/// | `POST …/{id}:cancel` | 200 and the operation; 409 once it has succeeded or failed |
///
/// `status` is `NotStarted`, `Running`, `Succeeded`, `Failed` or `Canceled`. `Retry-After`
/// is at least 10 seconds and at most 10 minutes, as the contract requires. Errors are
/// `{"error":{"code","message"}}`.
///
/// Azure clients need absolute URLs: set a [base URL](crate::Operations::public_url).
#[derive(Debug, Clone, Copy, Default)]
pub struct Arm {}

const ASYNC_OPERATION: HeaderName = HeaderName::from_static("azure-asyncoperation");

/// The limits of `Retry-After`, in seconds.
const SHORTEST: u64 = 10;
const LONGEST: u64 = 600;

/// Limits `Retry-After` to the range of the contract.
fn paced<'a>(context: &Context<'a>) -> Context<'a> {
    let seconds = context.retry_after;
    Context {
        retry_after: seconds.map(|seconds| seconds.clamp(SHORTEST, LONGEST)),
        ..*context
    }
}

fn operation_object(operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
    let metadata = operation.metadata();
    // The `id` is the path of the URL, which follows the host.
    let url = context.urls.status().unwrap_or_default();
    let after_scheme = url.find("://").map_or(0, |scheme| scheme + 3);
    let path = url[after_scheme..].find('/');
    let path = path.map_or("", |path| &url[after_scheme + path..]);
    let object = Object::begin_operation(operation)
        .value("id", path)
        .id("name", operation.id())
        .value("status", azure::status_word(operation.state()))
        .time("startTime", metadata.started_at().or(metadata.created_at()))
        .time("endTime", metadata.finished_at())
        .some("percentComplete", azure::percent(operation));
    let object = match (operation.state(), ErrorWords::from_operation(operation)) {
        (State::Succeeded, _) if operation.response().is_some() => {
            object.result("properties", operation, context).0
        }
        (_, Some(words)) => object.object("error", |error| words.fill(error)),
        (_, None) => object,
    };
    Ok(object
        .into_response(StatusCode::OK, JSON)?
        .retry_after(&paced(context)))
}

impl Dialect for Arm {
    fn parse(&self, request: &RequestView<'_>) -> Result<PollRequest, ApiError> {
        azure::parse_request(request)
    }

    fn accepted(&self, _: &OperationView<'_>, context: &Context<'_>) -> Response<BufferedBody> {
        empty(StatusCode::ACCEPTED)
            .no_store()
            .put(ASYNC_OPERATION, context.urls.status())
            .put(http::header::LOCATION, context.urls.below("result"))
            .retry_after(&paced(context))
    }

    fn status(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        operation_object(operation, context)
    }

    fn result(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        azure::result(operation, &paced(context))
    }

    fn ended(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        operation_object(operation, context).map(AnswerExt::private)
    }

    fn deleted(&self, _: &OperationId) -> Response<BufferedBody> {
        empty(StatusCode::NO_CONTENT)
    }

    fn error(&self, fault: &ApiError) -> Response<BufferedBody> {
        azure::fault(fault)
    }
}
