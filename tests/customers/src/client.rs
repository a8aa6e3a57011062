//! A request with its answer, or none.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header, response::Parts};
use serde::Deserialize;
use tokio::time::timeout;
use tower_operations_conformance::checker::{Call, CallAnswer, CallRequest, Entry};

use crate::{
    Cluster, Log, World,
    answer::{answer, events, refused, text},
    request::ClientRequest,
};

/// The time-out of an answer, in addition to the time for which it may be held.
const PATIENCE: Duration = Duration::from_secs(8);

/// An answer with its entity tag.
#[derive(Debug)]
pub struct Reply {
    /// The answer.
    pub answer: CallAnswer,
    /// The entity tag of the operation.
    pub etag: Option<String>,
}

/// What a customer saw of a stream of events.
#[derive(Debug, Default)]
pub struct Followed {
    /// The id of the last event.
    pub last: Option<String>,
    /// Whether the last event is the end of the operation.
    pub has_ended: bool,
}

/// A page of a list: its operations, and the cursor of the next page.
#[derive(Deserialize)]
struct Page {
    operations: Vec<Listed>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
}

impl<C: Cluster, L: Log> World<C, L> {
    /// Sends a request to a node, and logs the answer.
    pub async fn ask(&self, node: usize, request: ClientRequest<'_>) -> Reply {
        let sent = request.to_http(self.cluster.url(node));
        let begin = self.log.now();
        let answered = self.try_send(node, sent, PATIENCE + request.hold()).await;
        let reply = match answered {
            Some((parts, body)) => Reply {
                answer: answer(&request.ask, parts.status, &parts.headers, &body),
                etag: text(&parts.headers, header::ETAG.as_str()).map(str::to_owned),
            },
            None => Reply {
                answer: CallAnswer::Nothing,
                etag: None,
            },
        };
        self.log.add(&Entry::Call(Call {
            client: request.tenant.into(),
            owner: Some(request.tenant.into()),
            node: self.cluster.name(node).into(),
            begin,
            end: self.log.now(),
            ask: request.ask,
            answer: reply.answer.clone(),
        }));
        reply
    }

    /// Follows the events of an operation at a node for a while, and logs them. Returns the id of
    /// the last event, and whether the operation has ended.
    pub async fn follow_events(
        &self,
        node: usize,
        request: ClientRequest<'_>,
        patience: Duration,
    ) -> Followed {
        let sent = request.to_http(self.cluster.url(node));
        let begin = self.log.now();
        let mut body = Vec::new();
        let streamed = timeout(patience, self.cluster.stream(node, sent, &mut body)).await;
        let mut followed = Followed::default();
        let answer = match streamed {
            Ok(Some(response)) if response.status() != StatusCode::OK => answer(
                &request.ask,
                response.status(),
                response.headers(),
                &Bytes::new(),
            ),
            Ok(None) if body.is_empty() => CallAnswer::Nothing,
            // The customer was impatient.
            Err(_) if body.is_empty() => return followed,
            _ => {
                let mut seen = Vec::new();
                for event in events(&body) {
                    followed.last = Some(event.id);
                    followed.has_ended = event.seen.state.is_terminal();
                    seen.push(event.seen);
                }
                CallAnswer::Events { seen }
            }
        };
        self.log.add(&Entry::Call(Call {
            client: request.tenant.into(),
            owner: Some(request.tenant.into()),
            node: self.cluster.name(node).into(),
            begin,
            end: self.log.now(),
            ask: request.ask,
            answer,
        }));
        followed
    }

    /// Reads a list from its first page at this node to its last, each page at the next node,
    /// and logs the answer. Returns false if a page was not answered.
    pub async fn list(&self, mut node: usize, tenant: &str) -> bool {
        let first = (node, self.log.now());
        let (mut operations, mut cursor) = (Vec::new(), None::<String>);
        let ((asked, begin), answer) = loop {
            let sent = (node, self.log.now());
            let mut uri = format!("{}/operations/?limit=100", self.cluster.url(node));
            if let Some(cursor) = &cursor {
                let cursor = percent_encode(cursor);
                uri += &format!("&cursor={cursor}");
            }
            let request = Request::get(uri).header("x-tenant", tenant);
            let request = request.body(Bytes::new()).unwrap();
            let Some((parts, body)) = self.try_send(node, request, PATIENCE).await else {
                // The earlier pages were answered.
                break (sent, CallAnswer::Nothing);
            };
            if parts.status != StatusCode::OK {
                break (sent, refused(parts.status));
            }
            let page: Page = serde_json::from_slice(&body).expect("a page of a list");
            operations.extend(page.operations.into_iter().map(|listed| listed.id));
            match page.next {
                Some(_) => cursor = page.next,
                None => break (first, CallAnswer::Listed { operations }),
            }
            node = (node + 1) % self.cluster.nodes();
        };
        let is_whole = matches!(answer, CallAnswer::Listed { .. });
        self.log.add(&Entry::Call(Call {
            client: tenant.into(),
            owner: Some(tenant.into()),
            node: self.cluster.name(asked).into(),
            begin,
            end: self.log.now(),
            ask: CallRequest::List,
            answer,
        }));
        is_whole
    }

    async fn try_send(
        &self,
        node: usize,
        request: Request<Bytes>,
        patience: Duration,
    ) -> Option<(Parts, Bytes)> {
        let answered = timeout(patience, self.cluster.send(node, request)).await;
        Some(answered.ok().flatten()?.into_parts())
    }
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}
