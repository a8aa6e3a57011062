use http::{Method, Response, StatusCode};

use super::{
    Answer, ApiError, Context, Dialect, ListPage, ListParams, PollRequest, RequestView,
    answers::{AnswerExt, JSON, empty, replayed},
    error::ErrorWords,
    object::Object,
    plain,
    routes::{
        CANCEL, RESULT, ResourcePart, STATUS, limit, parameter, parse_request, refuse_foreign,
        states,
    },
};
use crate::operation::{BufferedBody, OperationId, OperationView, Progress, State};

/// The dialect that MongoDB's guidelines define (IPA-132, *Long-Running Operations*,
/// experimental).
///
/// | request | answer |
/// | --- | --- |
/// | an accepted request | 202 without a body, `Location` |
/// | `GET …/{id}` | 200: `operationId`, `status`, `operationType`, times, `progress`, `error`, `resultHref`, `retryAfterSeconds` |
/// | `GET …/{id}/result` (`resultHref`) | the recorded response |
/// | `POST …/{id}:cancel` | 200 and the operation; 409 once it has succeeded or failed |
/// | `GET …/`, if lists are on | `{"results"}`; `itemsPerPage` or `limit`, `status`, `cursor`, and a `Link` to the next page |
///
/// `status` is `PENDING`, `IN_PROGRESS`, `SUCCEEDED`, `FAILED` or `CANCELED`.
/// `operationType` is derived from the method of the request, or is `CUSTOM` if a
/// [custom method](Ipa::custom_method) is set. `expiresAt` is present once the operation has
/// ended: an unfinished operation does not expire. The next page is a link: a `pageNum`
/// other than 1 is `400`, and so is `includeCount=true`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ipa {
    custom_method: Option<&'static str>,
}

impl Ipa {
    /// Sets the custom method of the operations, for example `render` for
    /// `POST /reports/{id}:render`.
    #[must_use]
    pub fn custom_method(self, name: &'static str) -> Self {
        Self {
            custom_method: Some(name),
        }
    }

    fn fill(&self, object: Object, operation: &OperationView<'_>, context: &Context<'_>) -> Object {
        let metadata = operation.metadata();
        let state = operation.state();
        let kind = match (self.custom_method, metadata.method()) {
            (Some(_), _) => "CUSTOM",
            (None, Some(&Method::PUT | &Method::PATCH)) => "UPDATE",
            (None, Some(&Method::DELETE)) => "DELETE",
            (None, _) => "CREATE",
        };
        let progress = metadata.progress();
        let mut object = object
            .id("operationId", operation.id())
            .value("status", word(state))
            .value("operationType", kind)
            .some("customMethod", self.custom_method)
            .time("createdAt", metadata.created_at())
            .time("updatedAt", metadata.updated_at())
            .time("expiresAt", metadata.expires_at())
            .some("statusMessage", progress.and_then(Progress::message));
        if let Some(counted) = progress.filter(|progress| progress.total().is_some()) {
            object = object.object("progress", |progress| {
                progress
                    .some("completed", counted.completed())
                    .some("total", counted.total())
                    .some("unit", counted.unit())
            });
        }
        match (state, ErrorWords::from_operation(operation)) {
            (State::Pending | State::Running, _) => {
                object.some("retryAfterSeconds", context.retry_after)
            }
            (State::Succeeded, _) => object.some("resultHref", context.urls.below("result")),
            (State::Failed, Some(words)) => object.object("error", |object| error(object, &words)),
            (State::Failed | State::Canceled, _) => object,
        }
    }
}

const PARTS: &[ResourcePart] = &[STATUS, RESULT, CANCEL];

fn word(state: State) -> &'static str {
    match state {
        State::Pending => "PENDING",
        State::Running => "IN_PROGRESS",
        State::Succeeded => "SUCCEEDED",
        State::Failed => "FAILED",
        State::Canceled => "CANCELED",
    }
}

fn error(object: Object, words: &ErrorWords<'_>) -> Object {
    let strategy = match words.retryable {
        true => "BACKOFF",
        false => "NONE",
    };
    words
        .fill(object)
        .value("retryable", words.retryable)
        .value("retryStrategy", strategy)
}

/// Parses the parameters of a list: `status`, `limit` and `cursor`, and those of the
/// guidelines, of which only the first page and no count are supported.
fn listing(request: &RequestView<'_>) -> Result<ListParams, ApiError> {
    refuse_foreign(
        request,
        ["status", "itemsPerPage", "cursor"],
        &["limit", "pageNum", "includeCount"],
    )?;
    let listing = plain::listing(request)?;
    let items = parameter(request, "itemsPerPage")?.map(|text| limit(&text, "itemsPerPage"));
    let items = items.transpose()?;
    if items.is_some() && listing.limit.is_some() {
        return Err(ApiError::RepeatedParameter {
            parameter: "itemsPerPage",
        });
    }
    for (parameter_name, only) in [("pageNum", "1"), ("includeCount", "false")] {
        if let Some(value) = parameter(request, parameter_name)?.filter(|value| value != only) {
            return Err(ApiError::invalid_query(parameter_name, &value, only));
        }
    }
    Ok(ListParams {
        states: states(request, "status", word)?,
        limit: listing.limit.or(items),
        ..listing
    })
}

/// Returns the response for an error of a request.
fn refusal(status: StatusCode, words: &ErrorWords<'_>) -> Response<BufferedBody> {
    Object::new()
        .value("error", status.as_u16())
        .value("errorCode", &words.code)
        .value("reason", status.canonical_reason().unwrap_or_default())
        .value("detail", words.message)
        .into_error(status, JSON)
        .no_store()
}

impl Dialect for Ipa {
    fn parse(&self, request: &RequestView<'_>) -> Result<PollRequest, ApiError> {
        parse_request(request, PARTS, listing)
    }

    fn accepted(&self, _: &OperationView<'_>, context: &Context<'_>) -> Response<BufferedBody> {
        empty(StatusCode::ACCEPTED)
            .no_store()
            .location(context)
            .retry_after(context)
    }

    fn status(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        let object = self.fill(Object::new(), operation, context);
        let response = object.into_response(StatusCode::OK, JSON)?;
        Ok(response.retry_after(context))
    }

    fn result(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        match (operation.state(), ErrorWords::from_operation(operation)) {
            (State::Succeeded, _) => replayed(operation, context)?.ok_or(ApiError::Unpresentable),
            (_, Some(words)) => Ok(refusal(words.status, &words)),
            (_, None) => {
                let response = empty(StatusCode::ACCEPTED).private();
                Ok(response.location(context).retry_after(context))
            }
        }
    }

    fn ended(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        let object = self.fill(Object::new(), operation, context);
        Ok(object.into_response(StatusCode::OK, JSON)?.private())
    }

    fn deleted(&self, _: &OperationId) -> Response<BufferedBody> {
        empty(StatusCode::NO_CONTENT)
    }

    fn list(&self, page: &ListPage<'_>) -> Answer {
        let list = Object::new()
            .objects(
                "results",
                page.operations,
                |object, (operation, context)| self.fill(object, operation, context),
            )
            .some("next", page.next)
            .into_response(StatusCode::OK, JSON)?;
        let link = plain::next_page(page, "status", word);
        Ok(list.private().put(http::header::LINK, link))
    }

    fn error(&self, fault: &ApiError) -> Response<BufferedBody> {
        refusal(
            fault.status(),
            &ErrorWords::of_fault(fault, &fault.problem()),
        )
    }
}
