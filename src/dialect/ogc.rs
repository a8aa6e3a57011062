use std::borrow::Cow;

use http::{Method, Response, StatusCode, header::LINK};

use super::{
    Action, Answer, ApiError, Context, Dialect, ListPage, ListParams, OnTerminal, PollRequest,
    RequestView,
    answers::{AnswerExt, JSON, replayed},
    error::ErrorWords,
    object::Object,
    query,
    routes::{
        READ, ResourcePart, limit, parameter, parse_request, refuse_foreign, states, states_again,
    },
};
use crate::operation::{
    BufferedBody, OperationId, OperationView, Problem, Progress, RecordedResponse, State,
};

/// The dialect of OGC API - Processes (part 1, 1.0 and the drafts after it; the
/// requirements classes *Core* and *Dismiss*, and *Job list* except for some filters).
///
/// | request | answer |
/// | --- | --- |
/// | an accepted request | 201, `Location`, and the `statusInfo` |
/// | `GET …/{id}` | 200 and the `statusInfo` |
/// | `GET …/{id}/results` | the recorded response; 404 `result-not-ready` until the job has ended; the status of the failure and an exception if it has failed |
/// | `DELETE …/{id}` | 200 and the `statusInfo`, `dismissed`; a job that has ended or was dismissed is deleted |
/// | `GET …/`, if lists are on | `{"jobs","links"}`; `limit`, `status`, `type` |
///
/// `status` is `accepted`, `running`, `successful`, `failed` or `dismissed`; `processID` is
/// the [name](crate::AsyncAcceptLayer::operation_name) of the operation. Errors are
/// exceptions, that is problems (RFC 9457). The filters `processID`, `datetime`,
/// `minDuration` and `maxDuration` are `501`. An `offset` other than 0 is `400`: the next
/// page is a link.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ogc {}

const PARTS: &[ResourcePart] = &[
    ResourcePart {
        name: "",
        allow: "GET, HEAD, DELETE, OPTIONS",
        asks: &[
            (Method::GET, Action::Status),
            (Method::DELETE, Action::Cancel(OnTerminal::Delete)),
        ],
    },
    ResourcePart {
        name: "results",
        allow: READ,
        asks: &[(Method::GET, Action::Result)],
    },
];

/// The base URI of the standard's exception types, and the link relation of results.
const EXCEPTIONS: &str = "http://www.opengis.net/def/exceptions/ogcapi-processes-1/1.0";
const RESULTS: &str = "http://www.opengis.net/def/rel/ogc/1.0/results";

const UNSUPPORTED: [&str; 4] = ["processID", "datetime", "minDuration", "maxDuration"];

fn word(state: State) -> &'static str {
    match state {
        State::Pending => "accepted",
        State::Running => "running",
        State::Succeeded => "successful",
        State::Failed => "failed",
        State::Canceled => "dismissed",
    }
}

/// A relation, a URL and a media type.
type Link<'a> = (&'a str, Option<Cow<'a, str>>, &'a str);

/// Adds the links that have a URL.
fn links<'a, const N: usize>(object: Object, links: [Link<'a>; N]) -> Object {
    let known = links
        .into_iter()
        .filter_map(|(rel, href, media_type)| Some((rel, href?, media_type)));
    object.objects("links", known, |link, (rel, href, media_type)| {
        link.value("href", href)
            .value("rel", rel)
            .value("type", media_type)
    })
}

/// Returns the problem of a failed operation as the standard requires it: always with a
/// type, and with the status that is sent.
fn exception(operation: &OperationView<'_>) -> Option<Problem> {
    let (problem, status) = operation.problem().zip(operation.error_status())?;
    let problem = problem.clone().with_type(problem.type_uri());
    Some(problem.with_status(status))
}

/// Fills in a `statusInfo` of 1.0 and of the later drafts.
fn status_info(object: Object, operation: &OperationView<'_>, context: &Context<'_>) -> Object {
    let metadata = operation.metadata();
    let state = operation.state();
    let progress = metadata.progress();
    let percent = match state {
        State::Succeeded => Some(100.0),
        _ => progress.and_then(Progress::percent),
    };
    let words = ErrorWords::from_operation(operation);
    let message = words.as_ref().map(|words| words.message);
    let results = match state {
        State::Succeeded => context.urls.below("results"),
        _ => None,
    };
    let media_type = operation.recorded().and_then(RecordedResponse::media_type);
    let url = context.urls.status().map(Cow::Borrowed);
    let object = object
        .id("id", operation.id())
        .id("jobID", operation.id())
        .value("type", "process")
        .some("processID", metadata.name())
        .value("status", word(state))
        .some("message", message.or(progress.and_then(Progress::message)))
        .time("created", metadata.created_at())
        .time("started", metadata.started_at())
        .time("finished", metadata.finished_at())
        .time("updated", metadata.updated_at())
        .some("progress", percent.map(|percent| percent as u8))
        .some("exception", exception(operation));
    links(
        object,
        [
            ("self", url.clone(), JSON),
            // Only an unfinished job can be monitored.
            ("monitor", url.filter(|_| !state.is_terminal()), JSON),
            (RESULTS, results.map(Cow::Owned), media_type.unwrap_or(JSON)),
        ],
    )
}

impl Dialect for Ogc {
    fn parse(&self, request: &RequestView<'_>) -> Result<PollRequest, ApiError> {
        parse_request(request, PARTS, listing)
    }

    fn accepted(
        &self,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Response<BufferedBody> {
        status_info(Object::new(), operation, context)
            .into_error(StatusCode::CREATED, JSON)
            .no_store()
            .location(context)
            .retry_after(context)
    }

    fn status(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        let info =
            status_info(Object::new(), operation, context).into_response(StatusCode::OK, JSON)?;
        Ok(info.retry_after(context))
    }

    fn result(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        let problem = match operation.state() {
            State::Pending | State::Running => Problem::new(StatusCode::NOT_FOUND)
                .with_type(format!("{EXCEPTIONS}/result-not-ready"))
                .with_title("The results are not ready yet")
                .with_detail(format!(
                    "The job {} is {}.",
                    operation.id(),
                    word(operation.state())
                )),
            State::Canceled => {
                let id = operation.id().clone();
                return Err(ApiError::Canceled { id });
            }
            State::Failed => exception(operation).unwrap_or_default(),
            State::Succeeded => {
                let response = replayed(operation, context)?;
                return response.ok_or(ApiError::Unpresentable);
            }
        };
        Ok(problem.into_response().private().retry_after(context))
    }

    fn ended(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        let info =
            status_info(Object::new(), operation, context).into_response(StatusCode::OK, JSON)?;
        Ok(info.private())
    }

    fn deleted(&self, id: &OperationId) -> Response<BufferedBody> {
        Object::new()
            .id("id", id)
            .id("jobID", id)
            .value("type", "process")
            .value("status", word(State::Canceled))
            .into_error(StatusCode::OK, JSON)
            .private()
    }

    fn lists_results(&self) -> bool {
        false
    }

    fn list(&self, page: &ListPage<'_>) -> Answer {
        let next = page.next.map(|cursor| {
            let listing = page.params;
            let states = states_again(listing.states, "status", word);
            let limit = listing.limit.map(|limit| format!("&limit={limit}"));
            format!(
                "?cursor={}{states}{}",
                query::encode(cursor),
                limit.unwrap_or_default()
            )
        });
        let list = Object::new().objects("jobs", page.operations, |job, (operation, context)| {
            status_info(job, operation, context)
        });
        let next_href = next.as_deref().map(Cow::Borrowed);
        let list = links(list, [("next", next_href, JSON)]).into_response(StatusCode::OK, JSON)?;
        let next = next.map(|href| format!("<{href}>; rel=\"next\""));
        Ok(list.private().put(LINK, next))
    }

    fn error(&self, fault: &ApiError) -> Response<BufferedBody> {
        let problem = match fault {
            ApiError::NotFound { .. } => fault
                .problem()
                .with_type(format!("{EXCEPTIONS}/no-such-job")),
            fault => fault.problem(),
        };
        problem.into_response()
    }
}

fn listing(request: &RequestView<'_>) -> Result<ListParams, ApiError> {
    for name in UNSUPPORTED {
        if query::values(request.query, name).next().is_some() {
            return Err(ApiError::Unsupported { what: name });
        }
    }
    refuse_foreign(request, ["status", "limit", "cursor"], &["offset", "type"])?;
    // Paging uses cursors, not offsets.
    if let Some(offset) = parameter(request, "offset")?.filter(|offset| offset != "0") {
        let allowed = "0, since the next page is a link";
        return Err(ApiError::invalid_query("offset", &offset, allowed));
    }
    // Every job is of type `process`.
    let kinds = query::values(request.query, "type");
    let kinds = kinds.collect::<Result<Vec<_>, _>>();
    let kinds = kinds.map_err(|malformed| malformed.fault("type"))?;
    let mut kinds = kinds.iter().flat_map(|kinds| kinds.split(',')).peekable();
    if kinds.peek().is_some() && !kinds.any(|kind| kind == "process") {
        return Err(ApiError::Unsupported { what: "type" });
    }
    let limit = parameter(request, "limit")?.map(|text| limit(&text, "limit"));
    Ok(ListParams {
        states: states(request, "status", word)?,
        limit: limit.transpose()?,
        cursor: parameter(request, "cursor")?.map(Into::into),
        ..ListParams::default()
    })
}
