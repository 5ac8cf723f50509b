//! What requests to the API say in their bodies; bounded in count.

use serde::Deserialize;

use crate::api::Api;
use crate::api::Asked;
use crate::api::Sent;
use crate::api::failure::Failure;
use crate::api::receive;

/// `{"refs": ["docker.io/library/alpine:3", …]}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct References {
    pub(super) refs: Vec<String>,
}

/// Reads the references that something is to be done with.
pub(super) async fn references<B: Sent>(api: &Api, asked: &Asked<'_>, body: &mut B) -> Result<References, Failure> {
    let bytes = receive::whole(api, asked, body).await?;
    let asked: References = serde_json::from_slice(&bytes)
        .map_err(|_| Failure::bad_request("the request's body is not {\"refs\": [\"…\"]}"))?;
    if asked.refs.len() > usize::try_from(api.limits.references).unwrap_or(usize::MAX) {
        return Err(Failure::bad_request("too many references at once"));
    }
    Ok(asked)
}
