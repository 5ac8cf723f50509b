//! Whether the process runs, whether it can serve what it holds, and its metrics.

use http::HeaderValue;
use http::Response;
use http::header;

use crate::report::Report;
use crate::telemetry::Metrics;

use super::body::Body;
use super::with_body;

/// The process runs.
pub(super) fn healthy() -> Response<Body> {
    with_body("text/plain; charset=utf-8", "ok\n".to_owned())
}

/// It can serve what it holds. An upstream's state never changes that; a store that takes no writes says so here, and an
/// index that is being rebuilt.
pub(super) fn ready(report: &Report) -> Response<Body> {
    let (store, index) = (report.store_state(), report.index_state());
    let state = serde_json::json!({ "ready": true, "store": store, "index": index });
    let mut response = with_body("application/json", format!("{state}\n"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Everything that is counted.
pub(super) fn metrics(metrics: &Metrics) -> Response<Body> {
    with_body("application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.encode())
}
