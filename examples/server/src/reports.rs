//! A slow service, which uses only the handle of the crate, to report its progress.

use std::{
    convert::Infallible,
    error::Error,
    fmt::Display,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    response::IntoResponse,
};
use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Frame, SizeHint};
use http_body_util::LengthLimitError;
use sha2::{Digest, Sha256};
use tokio::{
    task::block_in_place,
    time::{Instant, sleep_until},
};
use tower::BoxError;
use tower_operations::{OperationHandle, Problem, Progress, dialect::ApiError};

use crate::{
    orders::{Ending, Format, Order, Orders},
    runs::Runs,
};

#[derive(Debug, thiserror::Error)]
#[error("the printer is out of order")]
pub struct OutOfOrder;

/// Renders reports.
#[derive(Clone)]
pub struct Renderer {
    pub orders: Orders,
    /// In bytes.
    pub body_limit: usize,
    /// Whether an invalid order is answered before the request is accepted.
    pub signals: bool,
    pub runs: Runs,
}

impl Renderer {
    /// Renders a report, page by page.
    pub async fn render<B>(self, request: Request<B>) -> Result<Response<Body>, OutOfOrder>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let Self {
            orders,
            body_limit,
            signals,
            runs,
        } = self;
        let operation = OperationHandle::from_extensions(request.extensions());
        let query = request.uri().query().map(str::to_owned);
        let order: Order = match to_bytes(Body::new(request.into_body()), body_limit).await {
            Ok(body) => match orders.read(query.as_deref(), &body) {
                Ok(order) => order,
                Err(error) => return Ok(unreadable(error)),
            },
            Err(error) if is_too_large(&error) => {
                let limit = body_limit as u64;
                return Ok(refused(ApiError::BodyTooLarge { limit }));
            }
            Err(error) => return Ok(unreadable(error)),
        };
        if signals && operation.accept().await.is_err() {
            let retry_after = Duration::from_secs(1);
            return Ok(refused(ApiError::Unavailable { retry_after }));
        }

        let run = runs.begin(&operation, &order.title);
        let mut due = Instant::now();
        for page in 1..=order.pages {
            due += Duration::from_millis(order.page_ms.into());
            sleep_until(due).await;
            operation
                .progress(Progress::from_count(page.into(), order.pages.into()).with_unit("pages"));
        }

        run.end();

        let response = match (&order.outcome, &order.format) {
            (Some(Ending::Problem), _) => problem(
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
                    .with_title("Report failed")
                    .with_detail("page 3 has no data")
                    .with("code", "InvalidInput"),
            ),
            (Some(Ending::Error), _) => return Err(OutOfOrder),
            (Some(Ending::Panic), _) => panic!("a panic was ordered"),
            (Some(Ending::Hang), _) => std::future::pending().await,
            (None, Format::Json) => orders.respond(order, query.as_deref()),
            (None, Format::Pdf) => block_in_place(|| pdf(order.bytes)),
        };
        Ok(response)
    }
}

/// Answers with a document of this length in bytes, which is never in memory as a whole. Its
/// checksum is sent ahead, so it is made twice.
fn pdf(length: u64) -> Response<Body> {
    let mut digest = Sha256::new();
    let mut document = Document { at: 0, length };
    while let Some(chunk) = document.chunk() {
        digest.update(chunk);
    }
    let digest = digest.finalize();
    let headers = [
        (CONTENT_TYPE, "application/pdf".to_owned()),
        (
            HeaderName::from_static("x-checksum"),
            digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        ),
    ];
    let document = Document { at: 0, length };
    (headers, Body::new(document)).into_response()
}

/// A document whose bytes follow from its length, most of them not UTF-8.
struct Document {
    at: u64,
    length: u64,
}

/// The length of the chunks of a document in bytes, a multiple of 4.
const CHUNK: u64 = 64 * 1024;

const HEAD: &[u8] = b"%PDF-1.7\n";

/// The bytes that chunks have in common. They are computed once, since an unoptimized build would
/// take minutes for the bytes of a large document.
static COMMON: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let numbers = (0..CHUNK as u32 / 4).map(|number| number.wrapping_mul(0x9e37_79b9));
    numbers.flat_map(u32::to_le_bytes).collect()
});

impl Document {
    /// Returns the next chunk, which begins with its number, or with the head of the document.
    fn chunk(&mut self) -> Option<Bytes> {
        if self.at == self.length {
            return None;
        }
        let mut chunk = COMMON.clone();
        let number = (self.at / CHUNK).to_le_bytes();
        let begin = if self.at == 0 { HEAD } else { &number };
        chunk[..begin.len()].copy_from_slice(begin);
        let left = self.length - self.at;
        chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        self.at += chunk.len() as u64;
        Some(chunk.into())
    }
}

impl http_body::Body for Document {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.chunk().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length - self.at)
    }
}

fn unreadable(why: impl Display) -> Response<Body> {
    problem(
        Problem::new(StatusCode::BAD_REQUEST)
            .with_title("The order cannot be read")
            .with_detail(why.to_string()),
    )
}

fn is_too_large(error: &axum::Error) -> bool {
    error
        .source()
        .is_some_and(<dyn Error>::is::<LengthLimitError>)
}

fn refused(fault: ApiError) -> Response<Body> {
    fault.into_response().map(Body::new)
}

fn problem(problem: Problem) -> Response<Body> {
    problem.into_response().map(Body::new)
}

/// The answer to a request that met an error and was not accepted. The error of an accepted
/// request is an outcome of its operation.
pub async fn out_of_order(error: OutOfOrder) -> Response<Body> {
    problem(Problem::new(StatusCode::INTERNAL_SERVER_ERROR).with_detail(error.to_string()))
}
