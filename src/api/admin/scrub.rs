//! `POST /api/v1/scrub`: hash what is stored again, and tell the progress, a line of JSON each time, until the pass ends.

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use http::Response;
use tokio::time::Duration;

use crate::api::Api;
use crate::api::Body;
use crate::api::with_body;
use crate::body::Content;

/// Between two lines at least.
const EVERY: Duration = Duration::from_millis(500);

/// Begins a pass or joins the one that runs. Whoever goes away does not end it.
pub(super) fn answer(api: &Api) -> Response<Body> {
    let told = api.scrub.start();
    let lines = stream::unfold(Some(told), |told| async move {
        let mut told = told?;
        let progress = told.borrow_and_update().clone()?;
        let more = progress.done.is_none();
        let mut line = serde_json::to_vec(&progress).ok()?;
        line.push(b'\n');
        if more {
            // The end is told at once, what lies between in steps.
            let ended = told.wait_for(|now| now.as_ref().is_some_and(|progress| progress.done.is_some()));
            drop(tokio::time::timeout(EVERY, ended).await);
        }
        Some((Ok(Bytes::from(line)), more.then_some(told)))
    });
    with_body("application/x-ndjson", Content::Stream { bytes: lines.boxed(), length: None })
}
