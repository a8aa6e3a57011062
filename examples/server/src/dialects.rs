//! The dialects of the server, and the other endpoints that their clients call.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::Query,
    response::IntoResponse,
    routing::{get, get_service, post_service},
};
use clap::ValueEnum;
use http::{Method, Request, Response, header::CONTENT_TYPE, request::Parts};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::Service;
use tower_operations::{
    Idempotency,
    accept::accepts_by_default,
    dialect::{Arm, Azure, Dialect, DurableFunctions, Fhir, Google, Ipa, OData, Ogc, Plain},
};

use crate::orders::Orders;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DialectKind {
    Plain,
    Azure,
    Arm,
    Google,
    #[value(name = "odata")]
    OData,
    Fhir,
    Ogc,
    Durable,
    Ipa,
}

impl DialectKind {
    pub fn dialect(self) -> Arc<dyn Dialect> {
        match self {
            Self::Plain => Arc::new(Plain::default()),
            Self::Azure => Arc::new(Azure::default()),
            Self::Arm => Arc::new(Arm::default()),
            Self::Google => Arc::new(Google::default()),
            Self::OData => Arc::new(OData::default()),
            Self::Fhir => Arc::new(Fhir::default()),
            Self::Ogc => Arc::new(Ogc::default()),
            Self::Durable => Arc::new(DurableFunctions::default()),
            Self::Ipa => Arc::new(Ipa::default()),
        }
    }

    /// Returns the path of the operations for the clients of the dialect.
    pub fn operations_at(self) -> &'static str {
        match self {
            Self::Google => "/v1/operations",
            Self::Ogc => "/jobs",
            Self::Durable => "/instances",
            _ => "/operations",
        }
    }

    /// Returns whether some clients of the dialect need absolute URLs.
    pub fn is_absolute(self) -> bool {
        self != Self::Plain
    }

    /// Returns whether a request is accepted.
    pub fn accepts(self, parts: &Parts) -> bool {
        match self {
            // Exports are requested with `GET`.
            Self::Fhir => parts.method == Method::GET,
            _ => accepts_by_default(parts),
        }
    }

    /// Returns the idempotency settings for the clients of the dialect.
    pub fn idempotency(self, rules: Option<Idempotency>) -> Option<Idempotency> {
        match self {
            // `Operation-Id`
            Self::Azure => Some(rules.unwrap_or_else(Idempotency::optional).client_ids()),
            _ => rules,
        }
    }

    /// Returns whether the clients of the dialect rely on a list.
    pub fn lists(self) -> bool {
        matches!(self, Self::Google | Self::Ogc | Self::Durable | Self::Ipa)
    }

    /// Returns the form of an order in the dialect.
    pub fn orders(self, base_url: &str) -> Orders {
        match self {
            Self::Ogc => Orders::Inputs,
            Self::Durable => Orders::Text,
            Self::Fhir => Orders::Export {
                base_url: base_url.into(),
            },
            _ => Orders::Json,
        }
    }

    /// Mounts the service at the paths that the clients of the dialect call.
    pub fn mount<S, R>(self, app: Router, reports: S) -> Router
    where
        S: Service<Request<axum::body::Body>, Response = R, Error = std::convert::Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        R: IntoResponse + 'static,
    {
        match self {
            Self::Ogc => app
                .route("/processes/report/execution", post_service(reports))
                .route("/", get(landing))
                .route("/conformance", get(conformance))
                .route("/processes", get(processes))
                .route("/processes/report", get(async || Json(process()))),
            Self::Durable => app.route("/orchestrators/report", post_service(reports)),
            Self::Fhir => app
                .route("/$export", get_service(reports))
                .route("/metadata", get(capabilities))
                .route("/Patient.ndjson", get(patients)),
            _ => app.route("/reports", post_service(reports)),
        }
    }
}

/// Returns the URL of a server on this machine.
pub fn local_url(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("http://localhost:{}", address.port()),
        false => format!("http://{address}"),
    }
}

/// Returns a minimal `CapabilityStatement`.
async fn capabilities() -> impl IntoResponse {
    let export = json!({
        "name": "export",
        "definition": "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/export",
    });
    let statement = json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2026-11-01",
        "kind": "instance",
        "fhirVersion": "4.0.1",
        "format": ["json"],
        "instantiates": ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"],
        "rest": [{"mode": "server", "operation": [export]}],
    });
    (
        [(CONTENT_TYPE, "application/fhir+json")],
        Json(statement).into_response().into_body(),
    )
}

fn link(rel: &str, href: &str) -> Value {
    json!({"rel": rel, "type": "application/json", "href": href})
}

/// Returns the landing page for clients of OGC API.
async fn landing() -> Json<Value> {
    let rel = |name| format!("http://www.opengis.net/def/rel/ogc/1.0/{name}");
    Json(json!({
        "title": "Reports",
        "links": [
            link("self", "/"),
            link("conformance", "/conformance"),
            link(&rel("conformance"), "/conformance"),
            link(&rel("processes"), "/processes"),
            link(&rel("job-list"), "/jobs"),
        ],
    }))
}

/// Returns the conformance classes. The list of jobs lacks the filters of the class *Job list*.
async fn conformance() -> Json<Value> {
    let classes = ["core", "json", "dismiss"];
    let uris = classes
        .map(|class| format!("http://www.opengis.net/spec/ogcapi-processes-1/1.0/conf/{class}"));
    Json(json!({"conformsTo": uris}))
}

async fn processes() -> Json<Value> {
    let links = [link("self", "/processes")];
    Json(json!({"processes": [process()], "links": links}))
}

fn process() -> Value {
    let input = |kind| json!({"schema": {"type": kind}, "minOccurs": 0});
    json!({
        "id": "report",
        "title": "Report",
        "version": "1.0.0",
        "jobControlOptions": ["sync-execute", "async-execute", "dismiss"],
        "outputTransmission": ["value"],
        "inputs": {
            "title": {"schema": {"type": "string"}},
            "pages": input("integer"),
            "page_ms": input("integer"),
            "outcome": input("string"),
        },
        "outputs": {"report": {"schema": {"type": "object"}}},
        "links": [
            link("self", "/processes/report"),
            link("http://www.opengis.net/def/rel/ogc/1.0/execute", "/processes/report/execution"),
        ],
    })
}

#[derive(Deserialize)]
pub struct Title {
    title: String,
}

/// Returns the exported file.
async fn patients(Query(Title { title }): Query<Title>) -> Response<axum::body::Body> {
    let patient = json!({"resourceType": "Patient", "id": "1", "name": [{"text": title}]});
    (
        [(CONTENT_TYPE, "application/fhir+ndjson")],
        format!("{patient}\n"),
    )
        .into_response()
}
