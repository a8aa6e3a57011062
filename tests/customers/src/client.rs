//! A request with its answer, or none.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header, response::Parts};
use serde::Deserialize;
use tokio::time::timeout;
use tower_operations_conformance::checker::{Call, CallAnswer, CallRequest, Entry};

use crate::{
    Cluster, Log, World,
    answer::{SeenEvent, answer, events, refused, text},
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
        let Reply { answer, .. } = &reply;
        self.log_call((node, begin), request.tenant, request.ask, answer.clone());
        reply
    }

    /// Follows the events of an operation at a node for a while, and logs them. Returns the last
    /// event.
    pub(crate) async fn follow_events(
        &self,
        node: usize,
        request: ClientRequest<'_>,
        patience: Duration,
    ) -> Option<SeenEvent> {
        let sent = request.to_http(self.cluster.url(node));
        let begin = self.log.now();
        let mut body = Vec::new();
        let streamed = timeout(patience, self.cluster.stream(node, sent, &mut body)).await;
        let answer = match streamed {
            // The customer was impatient.
            Err(_) if body.is_empty() => return None,
            Ok(None) if body.is_empty() => CallAnswer::Nothing,
            Ok(Some(head)) => answer(&request.ask, head.status(), head.headers(), &body),
            // A stream has begun, and broke or was left.
            _ => answer(&request.ask, StatusCode::OK, &HeaderMap::new(), &body),
        };
        self.log_call((node, begin), request.tenant, request.ask, answer);
        events(&body).pop()
    }

    fn log_call(
        &self,
        (node, begin): (usize, u64),
        tenant: &str,
        ask: CallRequest,
        answer: CallAnswer,
    ) {
        self.log.add(&Entry::Call(Call {
            client: tenant.into(),
            owner: Some(tenant.into()),
            node: self.cluster.name(node).into(),
            begin,
            end: self.log.now(),
            ask,
            answer,
        }));
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
        self.log_call((asked, begin), tenant, CallRequest::List, answer);
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
