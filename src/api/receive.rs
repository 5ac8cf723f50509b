//! Bodies of requests: read whole, bounded in bytes and in time, or a piece at a time.

use std::time::Duration;

use bytes::Bytes;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Limited;

use super::Api;
use super::Asked;
use super::Sent;
use super::failure::Failure;

/// Reads the whole body of a request to the API.
pub(super) async fn whole<B: Sent>(api: &Api, asked: &Asked<'_>, body: &mut B) -> Result<Bytes, Failure> {
    bounded(api, asked, body, api.limits.body_bytes).await
}

/// Reads the whole body. One that says that it is larger than `most` is not read at all.
pub(super) async fn bounded<B: Sent>(api: &Api, asked: &Asked<'_>, body: &mut B, most: u64) -> Result<Bytes, Failure> {
    let said = asked.head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if said.is_some_and(|length: u64| length > most) {
        return Err(Failure::body_too_large());
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    match tokio::time::timeout(api.limits.stall, Limited::new(body, most).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Failure::body_too_large()),
        Ok(Err(_)) | Err(_) => Err(Failure::bad_request("the request's body did not arrive")),
    }
}

/// Why a body came to no end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// Its client sent nothing for too long.
    #[error("the client sent nothing for too long")]
    Stalled,
    /// Its client went away, or sent what is no body.
    #[error("the request's body broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The next bytes of a body; none at its end.
pub(super) async fn next<B: Sent>(body: &mut B, stall: Duration) -> Result<Option<Bytes>, Ended> {
    loop {
        let frame = tokio::time::timeout(stall, body.frame()).await.map_err(|_| Ended::Stalled)?;
        let Some(frame) = frame else { return Ok(None) };
        // What is no data is a trailer, which says nothing to us.
        if let Ok(data) = frame.map_err(|error| Ended::Broken(error.into()))?.into_data() {
            return Ok(Some(data));
        }
    }
}
