//! Parsing the order of a report in each dialect.

use std::{sync::Arc, time::SystemTime};

use axum::{Json, body::Body, extract::Query, response::IntoResponse};
use http::{Response, Uri};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tower::BoxError;

/// An order of a report, and the outcome of its rendering.
#[derive(Deserialize)]
pub struct Order {
    pub title: String,
    #[serde(default = "one")]
    pub pages: u32,
    /// In milliseconds.
    #[serde(default)]
    pub page_ms: u32,
    pub outcome: Option<Ending>,
    #[serde(default)]
    pub format: Format,
    /// The length of a PDF.
    #[serde(default)]
    pub bytes: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    Problem,
    Error,
    Panic,
    Hang,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Json,
    Pdf,
}

#[derive(Serialize)]
struct Report {
    title: String,
    pages: u32,
}

fn one() -> u32 {
    1
}

/// The form of an order, and of the report.
#[derive(Clone)]
pub enum Orders {
    /// As JSON.
    Json,
    /// As JSON, in the member `inputs`.
    Inputs,
    /// As JSON, or as JSON text in a JSON string.
    Text,
    /// As parameters. The report is a manifest of the exported files.
    Export { base_url: Arc<str> },
}

#[derive(Deserialize)]
struct Inputs {
    inputs: Order,
}

impl Orders {
    pub fn read(&self, query: Option<&str>, body: &[u8]) -> Result<Order, BoxError> {
        Ok(match self {
            Self::Json => serde_json::from_slice(body)?,
            Self::Inputs => serde_json::from_slice::<Inputs>(body)?.inputs,
            Self::Text => match serde_json::from_slice::<String>(body) {
                Ok(text) => serde_json::from_str(&text)?,
                Err(_) => serde_json::from_slice(body)?,
            },
            Self::Export { .. } => {
                // Clients of the standard do not send a title.
                let mut query = query.unwrap_or_default().to_owned();
                if !query.split('&').any(|pair| pair.starts_with("title=")) {
                    query.push_str("&title=export");
                }
                let uri = Uri::builder().path_and_query(format!("/?{query}"));
                Query::try_from_uri(&uri.build()?)?.0
            }
        })
    }

    pub fn respond(&self, order: Order, query: Option<&str>) -> Response<Body> {
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
