//! Requests of customers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, Request, header};
use tower_operations_conformance::checker::CallRequest;

/// A request of a client.
#[derive(Debug)]
pub struct ClientRequest<'a> {
    /// The tenant on whose behalf the request is sent.
    pub tenant: &'a str,
    /// The request as it is logged.
    pub ask: CallRequest,
    /// The body of a post.
    pub body: Bytes,
    /// The version that the client knows: the entity tag for a conditional poll or delete, or the
    /// id of the last event for a stream.
    pub known: Option<&'a str>,
}

impl ClientRequest<'_> {
    /// Returns the time for which the answer may be held.
    pub fn hold(&self) -> Duration {
        match self.ask {
            CallRequest::Poll {
                wait: Some(hold), ..
            }
            | CallRequest::Post {
                hold: Some(hold), ..
            } => Duration::from_millis(hold),
            _ => Duration::ZERO,
        }
    }

    /// Returns the request to a node whose URL is `url`. If the URL is empty, the URI is the path
    /// alone.
    pub fn to_http(&self, url: &str) -> Request<Bytes> {
        let (method, path) = match &self.ask {
            CallRequest::Post { .. } => (Method::POST, "/reports".into()),
            CallRequest::Poll { operation, .. } | CallRequest::Events { operation, .. } => {
                (Method::GET, path_of(operation))
            }
            CallRequest::Result { operation } => (Method::GET, path_of(operation) + "/result"),
            CallRequest::Cancel { operation } | CallRequest::Delete { operation } => {
                (Method::DELETE, path_of(operation))
            }
            CallRequest::List => (Method::GET, "/operations/".into()),
        };
        let mut builder = Request::builder()
            .method(method)
            .uri(format!("{url}{path}"))
            .header("x-tenant", self.tenant);
        if let CallRequest::Post { key, id, .. } = &self.ask {
            if let Some(key) = key {
                builder = builder.header("idempotency-key", format!("\"{key}\""));
            }
            if let Some(id) = id {
                builder = builder.header("operation-id", id_of(id));
            }
        }
        if let CallRequest::Events { .. } = self.ask {
            builder = builder.header(header::ACCEPT, "text/event-stream");
        }
        let hold = self.hold().as_secs();
        if hold > 0 {
            builder = builder.header("prefer", format!("wait={hold}"));
        }
        if let Some(known) = self.known {
            let condition = match self.ask {
                CallRequest::Delete { .. } => header::IF_MATCH,
                CallRequest::Events { .. } => HeaderName::from_static("last-event-id"),
                _ => header::IF_NONE_MATCH,
            };
            builder = builder.header(condition, known);
        }
        builder.body(self.body.clone()).unwrap()
    }
}

fn path_of(operation: &str) -> String {
    format!("/operations/{}", id_of(operation))
}

/// Returns the id of an operation from its name in the log.
pub fn id_of(operation: &str) -> &str {
    operation.split_once('#').map_or(operation, |(id, _)| id)
}
