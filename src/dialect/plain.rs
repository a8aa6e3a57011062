use std::{borrow::Cow, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, LINK, RETRY_AFTER},
};

use super::{
    Accepted, Answer, Ask, Context, Dialect, Event, Fault, Inquiry, Intent, Listing, Preferences,
    WhenFinished, accepted::insert_location, prefer::delta_seconds, query,
};
use crate::operation::{OperationId, OperationView, PayloadView, State, WholeBody, essence};

/// The default dialect.
///
/// | request | answer |
/// | --- | --- |
/// | the accepted one | 202, `{"id","state","location"}` |
/// | `GET …/{id}` | 200 and the operation, also when it failed |
/// | `GET …/{id}/result` | the recorded response; 202 while there is none |
/// | `GET …/{id}/events`, or `Accept: text/event-stream` | an event for what it is, then one whenever it has changed |
/// | `GET …/`, where lists are on | `{"operations","next"}`; `state`, `limit`, `cursor` |
/// | the same, canceled | 410 |
/// | `DELETE …/{id}`, with an `If-Match` that names its `ETag`, succeeded or failed | 204, and it is forgotten |
/// | `DELETE …/{id}` | cancels; 200 and the operation, or 409 |
///
/// A replayed result carries `Operation-Result` with its status, which tells a
/// recorded 404 from one of the poll itself.
///
/// The id is the last segment of the path (or the one before `result` or
/// `events`), else
/// the query parameter `id`. One trailing slash is ignored. `Prefer: wait=N`
/// (RFC 7240, section 4.3) or `?wait=N`, in seconds, holds a `GET`.
///
/// Errors are `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, Copy)]
pub struct Plain {
    unfinished: StatusCode,
}

impl Default for Plain {
    fn default() -> Self {
        Self {
            unfinished: StatusCode::OK,
        }
    }
}

static OPERATION_RESULT: HeaderName = HeaderName::from_static("operation-result");

const RESOURCE: &str = "GET, HEAD, DELETE, OPTIONS";
const READ: &str = "GET, HEAD, OPTIONS";

/// What of an operation a path names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Result,
    Events,
}

impl Plain {
    /// Answers polls of unfinished operations with `202` and `Location` instead
    /// of `200`, for pollers that judge by the status alone.
    #[must_use]
    pub fn accepted_while_unfinished(self) -> Self {
        Self {
            unfinished: StatusCode::ACCEPTED,
        }
    }

    /// The operation in JSON.
    fn operation(
        &self,
        status: StatusCode,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Answer {
        let mut text = Vec::new();
        operation
            .write_json(context.inline_limit, &mut text)
            .map_err(|error| unpresentable(operation.id(), &error))?;
        let mut response = json(status, text);
        if let Some(seconds) = context.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::ACCEPTED {
            insert_location(response.headers_mut(), context.urls);
        }
        Ok(response)
    }
}

fn unpresentable(id: &OperationId, error: &serde_json::Error) -> Fault {
    tracing::error!(%id, %error, "a result cannot be written as JSON");
    Fault::Unpresentable
}

fn json(status: StatusCode, text: Vec<u8>) -> Response<WholeBody> {
    let mut response = Response::new(WholeBody::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Dialect for Plain {
    fn ask(&self, inquiry: &Inquiry<'_>) -> Result<Ask, Fault> {
        let path = inquiry.path.strip_suffix('/').unwrap_or(inquiry.path);
        let (path, part) = match path.rsplit_once('/') {
            Some((rest, "result")) => (rest, Part::Result),
            Some((rest, "events")) => (rest, Part::Events),
            _ => (path, Part::Whole),
        };
        let allow = match part {
            Part::Whole => RESOURCE,
            Part::Result | Part::Events => READ,
        };
        let segment = path.rsplit('/').next().unwrap_or_default();
        let id = match (inquiry.id, segment) {
            (Some(id), _) => Some(Cow::Borrowed(id)),
            (None, "") => query::parameter(inquiry.query, "id")
                .map_err(|_| Fault::InvalidId)?
                .filter(|id| !id.is_empty()),
            (None, segment) => Some(Cow::Borrowed(segment)),
        };
        let intent = match (inquiry.method, part) {
            (&Method::GET, Part::Whole) if wants_events(inquiry.headers) => Intent::Events,
            (&Method::GET, Part::Whole) => Intent::Status,
            (&Method::GET, Part::Result) => Intent::Result,
            (&Method::GET, Part::Events) => Intent::Events,
            (&Method::DELETE, Part::Whole) => Intent::Cancel(WhenFinished::Refuse),
            _ if id.is_none() && inquiry.lists => {
                return Err(Fault::MethodNotAllowed { allow: READ });
            }
            _ => return Err(Fault::MethodNotAllowed { allow }),
        };
        let Some(id) = id else {
            return match intent {
                Intent::Status if inquiry.lists => Ok(Ask::List(listing(inquiry)?)),
                Intent::Cancel(_) if inquiry.lists => Err(Fault::MethodNotAllowed { allow: READ }),
                _ => Err(Fault::MissingId),
            };
        };
        let id: OperationId = id.parse().map_err(|_| Fault::InvalidId)?;
        let wait = wait(inquiry)?;
        Ok(Ask::About { id, intent, wait })
    }

    fn accepted(
        &self,
        operation: &OperationView<'_>,
        context: &Context<'_>,
    ) -> Response<WholeBody> {
        Accepted::new(operation.id())
            .of_operation(operation.state(), context.urls, context.retry_after)
            .into_response()
    }

    fn status(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        let status = match operation.state().is_terminal() {
            true => StatusCode::OK,
            false => self.unfinished,
        };
        self.operation(status, operation, context)
    }

    fn result(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        let id = operation.id();
        let mut response = match (operation.state(), operation.response(), operation.problem()) {
            (State::Pending | State::Running, _, _) => {
                let unfinished = self.operation(StatusCode::ACCEPTED, operation, context)?;
                return Ok(no_store(unfinished));
            }
            (State::Canceled, _, _) => return Err(Fault::Canceled { id: id.clone() }),
            (_, Some(PayloadView::Response(recorded)), _) => context.replay.response(recorded),
            (_, Some(PayloadView::Json(value)), _) => {
                let mut text = Vec::new();
                value
                    .to_json(&mut text)
                    .map_err(|error| unpresentable(id, &error))?;
                json(StatusCode::OK, text)
            }
            (_, None, Some(problem)) => problem.clone().into_response(),
            (_, None, None) => {
                let mut response = Response::new(WholeBody::default());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
        };
        let status = HeaderValue::from(response.status().as_u16());
        response.headers_mut().insert(&OPERATION_RESULT, status);
        Ok(no_store(response))
    }

    fn ended(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Answer {
        self.operation(StatusCode::OK, operation, context)
            .map(no_store)
    }

    fn forgotten(&self, _: &OperationId) -> Response<WholeBody> {
        let mut response = Response::new(WholeBody::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    }

    /// `{"operations":[…],"next":"…"}`, with a `Link` to the next page (RFC
    /// 8288), which is relative to this one.
    fn list(
        &self,
        operations: &[OperationView<'_>],
        next: Option<&str>,
        listing: &Listing,
    ) -> Answer {
        let mut text = b"{\"operations\":[".to_vec();
        for (index, operation) in operations.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            operation
                .write_json(0, &mut text)
                .map_err(|error| unpresentable(operation.id(), &error))?;
        }
        text.push(b']');
        if let Some(next) = next {
            text.extend_from_slice(b",\"next\":");
            // A string into a Vec: neither can fail.
            let _ = serde_json::to_writer(&mut text, next);
        }
        text.push(b'}');
        let mut response = no_store(json(StatusCode::OK, text));
        let link = next.map(|cursor| HeaderValue::try_from(next_page(cursor, listing)));
        if let Some(Ok(link)) = link {
            response.headers_mut().insert(LINK, link);
        }
        Ok(response)
    }

    /// The operation as a `GET` gives it, under the name of its state.
    fn event(&self, operation: &OperationView<'_>, context: &Context<'_>) -> Result<Event, Fault> {
        let mut data = Vec::new();
        operation
            .write_json(context.inline_limit, &mut data)
            .map_err(|error| unpresentable(operation.id(), &error))?;
        let name = Some(operation.state().as_str());
        Ok(Event { name, data })
    }

    fn fault(&self, fault: &Fault) -> Response<WholeBody> {
        fault.clone().into_response()
    }
}

fn no_store(mut response: Response<WholeBody>) -> Response<WholeBody> {
    let value = HeaderValue::from_static("private, no-store");
    response.headers_mut().insert(CACHE_CONTROL, value);
    response
}

fn next_page(cursor: &str, listing: &Listing) -> String {
    let mut query = format!("?cursor={}", query::encode(cursor));
    if let Some(state) = listing.state {
        query.push_str(&format!("&state={state}"));
    }
    if let Some(limit) = listing.limit {
        query.push_str(&format!("&limit={limit}"));
    }
    format!("<{query}>; rel=\"next\"")
}

fn listing(inquiry: &Inquiry<'_>) -> Result<Listing, Fault> {
    let parameter = |name| {
        query::parameter(inquiry.query, name).map_err(|_| Fault::InvalidQuery { parameter: name })
    };
    let invalid = |parameter| move || Fault::InvalidQuery { parameter };
    let state = parameter("state")?
        .map(|word| word.parse().map_err(|_| invalid("state")()))
        .transpose()?;
    let limit = parameter("limit")?
        .map(|number| delta_seconds(number.as_bytes()).filter(|number| *number > 0))
        .map(|number| number.ok_or_else(invalid("limit")))
        .transpose()?
        .map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    let cursor = parameter("cursor")?.map(Cow::into_owned);
    Ok(Listing {
        state,
        limit,
        cursor,
    })
}

/// Whether an event stream is among what the client accepts by name (RFC 9110,
/// section 12.5.1).
fn wants_events(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| {
        let mut types = value.as_bytes().split(|byte| *byte == b',');
        types.any(|range| {
            let is_named = essence(range).eq_ignore_ascii_case(b"text/event-stream");
            // With weight 0 it is named to be refused.
            let mut parameters = range.split(|byte| *byte == b';').skip(1);
            is_named && !parameters.any(|weight| matches!(weight.trim_ascii(), b"q=0" | b"q=0.0"))
        })
    })
}

/// How long the client is willing to wait: what the URL says, else what
/// `Prefer` says.
fn wait(inquiry: &Inquiry<'_>) -> Result<Option<Duration>, Fault> {
    let parameter = query::parameter(inquiry.query, "wait").map_err(|_| Fault::InvalidWait)?;
    match parameter {
        None => Ok(Preferences::of(inquiry.headers).wait()),
        Some(text) => delta_seconds(text.as_bytes())
            .map(|seconds| Some(Duration::from_secs(seconds)).filter(|wait| !wait.is_zero()))
            .ok_or(Fault::InvalidWait),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(method: &Method, uri: &str) -> Result<(String, Intent), Fault> {
        let (path, query) = match uri.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (uri, None),
        };
        let headers = HeaderMap::new();
        Plain::default()
            .ask(&Inquiry::new(method, path, query, &headers))
            .map(|ask| match ask {
                Ask::About { id, intent, .. } => (id.to_string(), intent),
                Ask::List(_) => panic!("lists are off"),
            })
    }

    #[test]
    fn the_id_is_the_last_segment_or_the_one_before_result() {
        let is = |uri: &str, id: &str, intent| {
            assert_eq!(ask(&Method::GET, uri), Ok((id.into(), intent)), "{uri}");
        };
        is("/q3", "q3", Intent::Status);
        is("/q3/", "q3", Intent::Status);
        is("/a/b/q3", "q3", Intent::Status);
        is("/q3/result", "q3", Intent::Result);
        is("/q3/result/", "q3", Intent::Result);
        is("/?id=q3", "q3", Intent::Status);
        is("/result?id=q3", "q3", Intent::Result);
        assert_eq!(
            ask(&Method::DELETE, "/q3"),
            Ok(("q3".into(), Intent::Cancel(WhenFinished::Refuse)))
        );
    }

    #[test]
    fn what_is_no_id_is_said_to_be_none() {
        let get = |uri: &str| ask(&Method::GET, uri).unwrap_err();
        for uri in ["", "/", "/?id=", "/?x=1", "/result"] {
            assert_eq!(get(uri), Fault::MissingId, "{uri}");
        }
        for uri in [
            "/..", "/a%00", "/a%2Fb", "/%", "/?id=%zz", "/?id=..", "/events", "/q3//",
        ] {
            assert!(
                matches!(get(uri), Fault::InvalidId | Fault::MissingId),
                "{uri}"
            );
        }
        assert_eq!(get(&format!("/{}", "x".repeat(10_000))), Fault::InvalidId);
    }

    #[test]
    fn every_resource_says_its_methods() {
        let allow = |method, uri| ask(method, uri).unwrap_err().allow();
        assert_eq!(allow(&Method::OPTIONS, "/q3"), Some(RESOURCE));
        assert_eq!(allow(&Method::POST, "/q3"), Some(RESOURCE));
        assert_eq!(allow(&Method::DELETE, "/q3/result"), Some(READ));
    }

    #[test]
    fn the_url_says_how_long_before_the_header_does() {
        let mut headers = HeaderMap::new();
        headers.insert("prefer", HeaderValue::from_static("wait=9"));
        let wait = |query| {
            let inquiry = Inquiry::new(&Method::GET, "/q3", query, &headers);
            Plain::default().ask(&inquiry).map(|ask| match ask {
                Ask::About { wait, .. } => wait.map(|wait| wait.as_secs()),
                Ask::List(_) => panic!("lists are off"),
            })
        };
        assert_eq!(wait(None), Ok(Some(9)));
        assert_eq!(wait(Some("wait=5")), Ok(Some(5)));
        assert_eq!(wait(Some("wait=0")), Ok(None));
        for bad in ["wait=", "wait=x", "wait=-1", "wait=1.5", "wait=%zz"] {
            assert_eq!(wait(Some(bad)), Err(Fault::InvalidWait), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "\\PC{0,60}", query in prop::option::of("\\PC{0,60}")) {
            let headers = HeaderMap::new();
            let _ = Plain::default().ask(&Inquiry::new(&Method::GET, &path, query.as_deref(), &headers));
        }
    }
}
