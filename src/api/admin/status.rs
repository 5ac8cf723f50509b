//! `GET /api/v1/status`.

use http::Response;

use crate::api::Api;
use crate::api::Body;

use super::json;

/// How the server is.
pub(super) fn answer(api: &Api) -> Response<Body> {
    // Every field of it can be written.
    json(serde_json::to_string(&api.report.status()).unwrap_or_default())
}
