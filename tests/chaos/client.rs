//! HTTP as customers see it: an answer, or none.

use std::time::Duration;

use bytes::Bytes;
use http::header;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;
use tower_operations::checker::{Answer, Call, Entry};

use super::{
    cluster::Node,
    record::Record,
    wish::{Wish, answer, text},
};

/// How long an answer may take, beyond what it may be held.
const PATIENCE: Duration = Duration::from_secs(8);

pub(crate) struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
}

/// An answer, and the entity tag that came with it.
pub(crate) struct Told {
    pub(crate) answer: Answer,
    pub(crate) etag: Option<String>,
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
        let patience = PATIENCE + wish.hold();
        let begin = record.now();
        let answered = timeout(patience, async {
            let response = self.pool.request(request).await.ok()?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some((parts, body))
        });
        let answered = answered.await.ok().flatten();
        let end = record.now();
        let told = match answered {
            Some((parts, body)) => Told {
                answer: answer(&wish.ask, parts.status, &parts.headers, &body),
                etag: text(&parts.headers, header::ETAG.as_str()).map(str::to_owned),
            },
            None => Told {
                answer: Answer::Nothing,
                etag: None,
            },
        };
        record.add(&Entry::Call(Call {
            client: wish.tenant.into(),
            node: node.name.clone(),
            begin,
            end,
            ask: wish.ask,
            answer: told.answer.clone(),
        }));
        told
    }
}
