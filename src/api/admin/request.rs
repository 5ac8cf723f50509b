//! Bodies of requests: bounded in bytes, in time and in count.

use http_body_util::BodyExt as _;
use http_body_util::Limited;
use serde::Deserialize;

use crate::api::Api;
use crate::api::Sent;
use crate::api::failure::Failure;

/// `{"refs": ["docker.io/library/alpine:3", …]}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct References {
    pub(super) refs: Vec<String>,
}

/// Reads the references that something is to be done with.
pub(super) async fn references<B: Sent>(api: &Api, body: &mut B) -> Result<References, Failure> {
    let most = usize::try_from(api.limits.body_bytes).unwrap_or(usize::MAX);
    let whole = tokio::time::timeout(api.limits.stall, Limited::new(body, most).collect()).await;
    let bytes = match whole {
        Ok(Ok(whole)) => whole.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => return Err(Failure::body_too_large()),
        Ok(Err(_)) | Err(_) => return Err(Failure::bad_request("the request's body did not arrive")),
    };
    let asked: References = serde_json::from_slice(&bytes)
        .map_err(|_| Failure::bad_request("the request's body is not {\"refs\": [\"…\"]}"))?;
    if asked.refs.len() > usize::try_from(api.limits.references).unwrap_or(usize::MAX) {
        return Err(Failure::bad_request("too many references at once"));
    }
    Ok(asked)
}
