//! The inner service: renders reports slowly, and notes its runs in the log.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Body;
use http_body_util::BodyExt;
use serde::Deserialize;
use test_customers::Log;
use tokio::time::sleep;
use tower::BoxError;
use tower_operations::{OperationHandle, Problem, Progress, testing::TaskGroup};
use tower_operations_conformance::checker::{Entry, RunEntry, RunEvent};

use crate::{document, journal::Journal, report_body::ReportBody};

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
    /// The length of a document, in bytes.
    #[serde(default)]
    bytes: usize,
}

/// A run in progress.
pub(crate) struct Run {
    renderer: Renderer,
    operation: OperationHandle,
    title: String,
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
    ) -> Result<Response<ReportBody>, BoxError>
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
        let run = self.begin(operation.clone(), &order.title);
        for page in 1..=order.pages {
            sleep(Duration::from_millis(order.page_ms)).await;
            if reports {
                operation.progress(Progress::from_count(page.into(), order.pages.into()));
            }
        }
        let (document, kind) = match order.outcome.as_deref() {
            Some("problem") => {
                run.end();
                let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY);
                let response = problem.with_title("Report failed").into_response();
                return Ok(response.map(ReportBody::from));
            }
            Some("error") => {
                run.end();
                return Err("the printer is out of order".into());
            }
            Some(_) => {
                run.end();
                std::panic::panic_any(ORDERED_PANIC)
            }
            None if order.bytes > 0 => {
                let document = document::pdf(&order.title, order.bytes);
                (document, "application/pdf")
            }
            None => {
                let report = document::report(&order.title, order.pages);
                (report, "application/json")
            }
        };
        let mut response = Response::new(ReportBody::new(document, run));
        let kind = HeaderValue::from_static(kind);
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(response)
    }

    fn begin(self, operation: OperationHandle, title: &str) -> Run {
        let run = Run {
            renderer: self,
            operation,
            title: title.into(),
            has_ended: false,
        };
        run.note(RunEvent::Begin);
        run
    }
}

/// The message of a panic that an order asked for.
pub const ORDERED_PANIC: &str = "a panic was ordered";

impl Run {
    pub(crate) fn end(mut self) {
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
            title: self.title.clone(),
            event,
            at: self.renderer.journal.now(),
        }));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.has_ended && !self.renderer.tasks.is_aborted() {
            self.note(RunEvent::Dropped);
        }
    }
}

/// Returns the answer to a request that met an error and has no operation.
pub(crate) fn out_of_order(error: &BoxError) -> Response<ReportBody> {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
        .with_detail(error.to_string())
        .into_response()
        .map(ReportBody::from)
}
