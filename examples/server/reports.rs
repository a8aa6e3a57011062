//! A slow service. It knows nothing of the layer but the handle by which it
//! says how far it has come.

use std::{
    error::Error,
    fmt::Display,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::runs::Runs;
use axum::{
    Json,
    body::{Body, to_bytes},
    extract::Query,
    response::IntoResponse,
};
use http::{HeaderName, Request, Response, StatusCode, Uri, header::CONTENT_TYPE};
use http_body_util::LengthLimitError;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{
    task::block_in_place,
    time::{Instant, sleep_until},
};
use tower::BoxError;
use tower_operations::{OperationHandle, Problem, Progress, RequestBody, dialect::Fault};

/// The report that is asked for, and how it is to end.
#[derive(Deserialize)]
struct Order {
    title: String,
    #[serde(default = "one")]
    pages: u32,
    /// In milliseconds.
    #[serde(default)]
    page_ms: u32,
    outcome: Option<Ending>,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    bytes: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Ending {
    Problem,
    Error,
    Panic,
    Hang,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Pdf,
}

#[derive(Serialize)]
struct Report {
    title: String,
    pages: u32,
}

#[derive(Debug, thiserror::Error)]
#[error("the printer is out of order")]
pub(crate) struct OutOfOrder;

/// The largest PDF, in bytes.
const LARGEST: u32 = 64 * 1024 * 1024;

fn one() -> u32 {
    1
}

/// How an order arrives, and how a report is handed out.
#[derive(Clone)]
pub(crate) enum Orders {
    /// As JSON.
    Json,
    /// As JSON, in the member `inputs`.
    Inputs,
    /// As JSON, or as JSON text in a JSON string.
    Text,
    /// As parameters. The report is a manifest of what was exported.
    Export { base_url: Arc<str> },
}

#[derive(Deserialize)]
struct Inputs {
    inputs: Order,
}

impl Orders {
    fn read(&self, query: Option<&str>, body: &[u8]) -> Result<Order, BoxError> {
        Ok(match self {
            Self::Json => serde_json::from_slice(body)?,
            Self::Inputs => serde_json::from_slice::<Inputs>(body)?.inputs,
            Self::Text => match serde_json::from_slice::<String>(body) {
                Ok(text) => serde_json::from_str(&text)?,
                Err(_) => serde_json::from_slice(body)?,
            },
            Self::Export { .. } => {
                // The clients of the standard do not say what it is called.
                let mut query = query.unwrap_or_default().to_owned();
                if !query.split('&').any(|pair| pair.starts_with("title=")) {
                    query.push_str("&title=export");
                }
                let uri = Uri::builder().path_and_query(format!("/?{query}"));
                Query::try_from_uri(&uri.build()?)?.0
            }
        })
    }

    fn hand_out(&self, order: Order, query: Option<&str>) -> Response<Body> {
        let Order { title, pages, .. } = order;
        let Self::Export { base_url } = self else {
            return Json(Report { title, pages }).into_response();
        };
        let encoded: String = title
            .bytes()
            .map(|byte| match byte.is_ascii_alphanumeric() {
                true => char::from(byte).to_string(),
                false => format!("%{byte:02X}"),
            })
            .collect();
        let file = format!("{base_url}/Patient.ndjson?title={encoded}");
        Json(json!({
            "transactionTime": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            "request": format!("{base_url}/$export?{}", query.unwrap_or_default()),
            "requiresAccessToken": false,
            "output": [{"type": "Patient", "url": file, "count": 1}],
            "error": [],
        }))
        .into_response()
    }
}

/// Renders reports.
#[derive(Clone)]
pub(crate) struct Renderer {
    pub(crate) orders: Orders,
    /// In bytes.
    pub(crate) body_limit: usize,
    /// Whether an order that is no good is answered before the request is accepted.
    pub(crate) signals: bool,
    pub(crate) runs: Runs,
}

impl Renderer {
    /// Renders a report, page by page.
    pub(crate) async fn render(
        self,
        request: Request<RequestBody<Body>>,
    ) -> Result<Response<Body>, OutOfOrder> {
        let Self {
            orders,
            body_limit,
            signals,
            runs,
        } = self;
        let operation = OperationHandle::of(request.extensions());
        let query = request.uri().query().map(str::to_owned);
        let order: Order = match to_bytes(Body::new(request.into_body()), body_limit).await {
            Ok(body) => match orders.read(query.as_deref(), &body) {
                Ok(order) => order,
                Err(error) => return Ok(unreadable(error)),
            },
            Err(error) if is_too_large(&error) => {
                let limit = body_limit as u64;
                return Ok(refused(Fault::BodyTooLarge { limit }));
            }
            Err(error) => return Ok(unreadable(error)),
        };
        if order.bytes > LARGEST {
            return Ok(unreadable(format_args!("bytes is at most {LARGEST}")));
        }
        if signals && operation.accept().await.is_err() {
            let retry_after = Duration::from_secs(1);
            return Ok(refused(Fault::Unavailable { retry_after }));
        }

        let run = runs.begin(&operation, &order.title);
        let mut due = Instant::now();
        for page in 1..=order.pages {
            due += Duration::from_millis(order.page_ms.into());
            sleep_until(due).await;
            operation.progress(Progress::counted(page.into(), order.pages.into()).unit("pages"));
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
            (None, Format::Json) => orders.hand_out(order, query.as_deref()),
            (None, Format::Pdf) => block_in_place(|| pdf(order.bytes as usize)),
        };
        Ok(response)
    }
}

/// A document of this size. Most of it is not UTF-8.
fn pdf(bytes: usize) -> Response<Body> {
    let head = b"%PDF-1.7\n".iter().copied();
    let rest = (0_u32..).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes());
    let document: Vec<u8> = head.chain(rest).take(bytes).collect();
    let digest = Sha256::digest(&document);
    let headers = [
        (CONTENT_TYPE, "application/pdf".to_owned()),
        (
            HeaderName::from_static("x-checksum"),
            digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        ),
    ];
    (headers, document).into_response()
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

fn refused(fault: Fault) -> Response<Body> {
    fault.into_response().map(Body::new)
}

fn problem(problem: Problem) -> Response<Body> {
    problem.into_response().map(Body::new)
}

/// The answer to a request that was not accepted and met an error. Of one that
/// was, the error is an outcome of its operation.
pub(crate) async fn out_of_order(error: OutOfOrder) -> Response<Body> {
    problem(Problem::new(StatusCode::INTERNAL_SERVER_ERROR).with_detail(error.to_string()))
}
