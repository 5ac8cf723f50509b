//! Work that goes on: what it did so far, a line of JSON each time, until it ends.

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use http::Response;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Duration;

use crate::api::Body;
use crate::api::with_body;
use crate::body::Content;

/// Between two lines at least.
const EVERY: Duration = Duration::from_millis(500);

/// The lines. Whoever goes away does not end the work.
pub(super) fn lines<P>(told: watch::Receiver<Option<P>>, is_done: fn(&P) -> bool) -> Response<Body>
where
    P: Clone + Serialize + Send + Sync + 'static,
{
    let lines = stream::unfold(Some(told), move |told| async move {
        let mut told = told?;
        let progress = told.borrow_and_update().clone()?;
        let more = !is_done(&progress);
        let mut line = serde_json::to_vec(&progress).ok()?;
        line.push(b'\n');
        if more {
            // The end is told at once, what lies between in steps.
            let ended = told.wait_for(|now| now.as_ref().is_some_and(is_done));
            drop(tokio::time::timeout(EVERY, ended).await);
        }
        Some((Ok(Bytes::from(line)), more.then_some(told)))
    });
    with_body("application/x-ndjson", Content::Stream { bytes: lines.boxed(), length: None })
}
