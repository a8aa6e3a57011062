//! The HTTP client of the customers: an answer, or none.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header, response::Parts};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use tokio::time::timeout;
use tower_operations_conformance::checker::{Call, CallAnswer, CallRequest, Entry};

use super::{
    cluster::Node,
    record::Record,
    wish::{ClientRequest, answer, refused, text},
};

/// The time-out of an answer, in addition to the time for which it may be held.
const PATIENCE: Duration = Duration::from_secs(8);

pub(crate) struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
}

/// An answer with its entity tag.
pub(crate) struct Reply {
    pub(crate) answer: CallAnswer,
    pub(crate) etag: Option<String>,
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

impl Client {
    pub(crate) fn new() -> Self {
        let pool = Pool::builder(TokioExecutor::new())
            // Only customers repeat requests, so that the log contains each of them.
            .retry_canceled_requests(false)
            .build_http();
        Self { pool }
    }

    /// Sends a request to a node, and records the answer.
    pub(crate) async fn ask(
        &self,
        node: &Node,
        request: ClientRequest<'_>,
        record: &Record,
    ) -> Reply {
        let sent = request.to_http(&node.url).map(Full::new);
        let begin = record.now();
        let answered = self.try_send(sent, PATIENCE + request.hold()).await;
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
        record.add(&Entry::Call(Call {
            client: request.tenant.into(),
            owner: Some(request.tenant.into()),
            node: node.name.clone(),
            begin,
            end: record.now(),
            ask: request.ask,
            answer: reply.answer.clone(),
        }));
        reply
    }

    /// Reads a list from its first page to its last, each page at the next node, and records
    /// the answer. Returns false if a page was not answered.
    pub(crate) async fn list(
        &self,
        mut nodes: impl Iterator<Item = &Node>,
        tenant: &str,
        record: &Record,
    ) -> bool {
        let mut next = nodes.next().expect("there is a node");
        let first = (next.name.clone(), record.now());
        let (mut operations, mut cursor) = (Vec::new(), None::<String>);
        let ((node, begin), answer) = loop {
            let sent = (next.name.clone(), record.now());
            let mut uri = format!("{}/operations/?limit=100", next.url);
            if let Some(cursor) = &cursor {
                let cursor = percent_encode(cursor);
                uri += &format!("&cursor={cursor}");
            }
            let request = Request::get(uri).header("x-tenant", tenant);
            let request = request.body(Full::default()).unwrap();
            let Some((parts, body)) = self.try_send(request, PATIENCE).await else {
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
            next = nodes.next().unwrap_or(next);
        };
        let is_whole = matches!(answer, CallAnswer::Listed { .. });
        record.add(&Entry::Call(Call {
            client: tenant.into(),
            owner: Some(tenant.into()),
            node,
            begin,
            end: record.now(),
            ask: CallRequest::List,
            answer,
        }));
        is_whole
    }

    async fn try_send(
        &self,
        request: Request<Full<Bytes>>,
        patience: Duration,
    ) -> Option<(Parts, Bytes)> {
        let answered = timeout(patience, async {
            let response = self.pool.request(request).await.ok()?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some((parts, body))
        });
        answered.await.ok().flatten()
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
