//! The inner service: renders reports slowly, and notes its runs in the log.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Body;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::json;
use test_customers::Log;
use tokio::time::sleep;
use tower::BoxError;
use tower_operations::{BufferedBody, OperationHandle, Problem, Progress, testing::TaskGroup};
use tower_operations_conformance::checker::{Entry, RunEntry, RunEvent};

use crate::journal::Journal;

/// Renders reports on a node.
#[derive(Debug, Clone)]
pub(crate) struct Renderer {
    pub(crate) journal: Arc<Journal>,
    pub(crate) node: Arc<str>,
    /// The tasks of the node. The end of a process is not the end of a run.
    pub(crate) tasks: TaskGroup,
}

/// An order of a report.
#[derive(Deserialize)]
struct Order {
    title: String,
    #[serde(default)]
    pages: u32,
    #[serde(default)]
    page_ms: u64,
    outcome: Option<String>,
    /// The size of a document, in bytes.
    #[serde(default)]
    bytes: usize,
}

/// A run in progress.
struct Run<'a> {
    renderer: &'a Renderer,
    operation: OperationHandle,
    title: &'a str,
    has_ended: bool,
}

impl Renderer {
    /// Renders a report, page by page.
    ///
    /// # Errors
    /// Returns an error if the order asks for one.
    ///
    /// # Panics
    /// Panics if the order asks for it.
    pub(crate) async fn render<B>(
        self,
        request: Request<B>,
    ) -> Result<Response<BufferedBody>, BoxError>
    where
        B: Body<Error: Into<BoxError>>,
    {
        let operation = OperationHandle::from_extensions(request.extensions());
        let body = request
            .into_body()
            .collect()
            .await
            .map_err(Into::into)?
            .to_bytes();
        let order: Order = serde_json::from_slice(&body)?;
        // Reports also tell a run that its operation has ended, so some runs send none.
        let reports = order.title.bytes().map(usize::from).sum::<usize>() % 3 != 0;
        let run = self.begin(&operation, &order.title);
        for page in 1..=order.pages {
            sleep(Duration::from_millis(order.page_ms)).await;
            if reports {
                operation.progress(Progress::from_count(page.into(), order.pages.into()));
            }
        }
        run.end();
        match order.outcome.as_deref() {
            Some("problem") => Ok(Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
                .with_title("Report failed")
                .into_response()),
            Some("error") => Err("the printer is out of order".into()),
            Some(_) => std::panic::panic_any(ORDERED_PANIC),
            None if order.bytes > 0 => {
                let document = BufferedBody::from(document(order.bytes));
                let mut response = Response::new(document);
                let pdf = http::HeaderValue::from_static("application/pdf");
                response.headers_mut().insert(CONTENT_TYPE, pdf);
                Ok(response)
            }
            None => {
                let report = json!({ "title": order.title, "pages": order.pages });
                let mut response = Response::new(BufferedBody::from(report.to_string()));
                let json = http::HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, json);
                Ok(response)
            }
        }
    }

    fn begin<'a>(&'a self, operation: &OperationHandle, title: &'a str) -> Run<'a> {
        let run = Run {
            renderer: self,
            operation: operation.clone(),
            title,
            has_ended: false,
        };
        run.note(RunEvent::Begin);
        run
    }
}

/// The message of a panic that an order asked for.
pub const ORDERED_PANIC: &str = "a panic was ordered";

/// Returns a document of this size, most of which is no text.
fn document(bytes: usize) -> Bytes {
    let mut document = Vec::with_capacity(bytes + 16);
    document.extend_from_slice(b"%PDF-1.7\n");
    for number in (0_u32..).take(bytes / 4) {
        document.extend_from_slice(&number.wrapping_mul(0x9e37_79b9).to_le_bytes());
    }
    document.truncate(bytes);
    document.into()
}

impl Run<'_> {
    fn end(mut self) {
        self.has_ended = true;
        self.note(RunEvent::End);
    }

    fn note(&self, event: RunEvent) {
        let Some(operation) = self.operation.id() else {
            return;
        };
        self.renderer.journal.add(&Entry::Run(RunEntry {
            operation: operation.to_string(),
            attempt: self.operation.attempt(),
            node: (*self.renderer.node).into(),
            title: self.title.into(),
            event,
            at: self.renderer.journal.now(),
        }));
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if !self.has_ended && !self.renderer.tasks.is_aborted() {
            self.note(RunEvent::Dropped);
        }
    }
}

/// Returns the answer to a request that met an error and has no operation.
pub(crate) fn out_of_order(error: &BoxError) -> Response<BufferedBody> {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
        .with_detail(error.to_string())
        .into_response()
}
