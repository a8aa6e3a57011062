//! HTTP as customers see it: an answer, or none.

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
    wish::{Wish, answer, refused, text},
};

/// How long an answer may take, beyond what it may be held.
const PATIENCE: Duration = Duration::from_secs(8);

pub(crate) struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
}

/// An answer, and the entity tag that came with it.
pub(crate) struct Told {
    pub(crate) answer: CallAnswer,
    pub(crate) etag: Option<String>,
}

/// The operations on a page of a list, and where the next page begins.
#[derive(Deserialize)]
struct Page {
    operations: Vec<Named>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

impl Client {
    pub(crate) fn new() -> Self {
        let pool = Pool::builder(TokioExecutor::new())
            // What is sent twice is sent twice by a customer who knows it.
            .retry_canceled_requests(false)
            .build_http();
        Self { pool }
    }

    /// Asks a node, and records what came of it.
    pub(crate) async fn ask(&self, node: &Node, wish: Wish<'_>, record: &Record) -> Told {
        let request = wish.request(&node.url).map(Full::new);
        let begin = record.now();
        let answered = self.answered(request, PATIENCE + wish.hold()).await;
        let told = match answered {
            Some((parts, body)) => Told {
                answer: answer(&wish.ask, parts.status, &parts.headers, &body),
                etag: text(&parts.headers, header::ETAG.as_str()).map(str::to_owned),
            },
            None => Told {
                answer: CallAnswer::Nothing,
                etag: None,
            },
        };
        record.add(&Entry::Call(Call {
            client: wish.tenant.into(),
            owner: Some(wish.tenant.into()),
            node: node.name.clone(),
            begin,
            end: record.now(),
            ask: wish.ask,
            answer: told.answer.clone(),
        }));
        told
    }

    /// Reads a list from its first page to its last, each at the next node, and records
    /// what came of it. False if it came to no end.
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
                let cursor = percent_encoded(cursor);
                uri += &format!("&cursor={cursor}");
            }
            let request = Request::get(uri).header("x-tenant", tenant);
            let request = request.body(Full::default()).unwrap();
            let Some((parts, body)) = self.answered(request, PATIENCE).await else {
                // This page had no answer: those before it had theirs.
                break (sent, CallAnswer::Nothing);
            };
            if parts.status != StatusCode::OK {
                break (sent, refused(parts.status));
            }
            let page: Page = serde_json::from_slice(&body).expect("a page of a list");
            operations.extend(page.operations.into_iter().map(|named| named.id));
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

    async fn answered(
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

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}
