//! The orderly end, with transfers that do not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::support::Fault;
use crate::support::Larder;
use crate::support::Upstream;
use crate::support::client;
use crate::support::images::image;

/// A fill is a task of its own, which no client's leaving ends: with an upstream that went silent the process waited
/// for the stall time-out and all tries, whatever `drain` said.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_does_not_end_does_not_keep_larder_from_ending() {
    let upstream = Upstream::start().await;
    let image = image(340, &[500_000]);
    upstream.add("library/app", "1", &image);
    upstream.add("library/silent", "1", &image);
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    upstream.script(move |seen| match seen.path.as_str() {
        path if path.contains("/library/silent/") => Some(Fault::Silent),
        path if path.contains("/blobs/") => Some(Fault::Gate(200_000, Arc::clone(&held))),
        _ => None,
    });
    let limits = r#", "limits": {"stall": "10m", "headers": "10m"}"#;
    let mut larder = Larder::configured(&upstream, r#", "drain": "100ms""#, limits).await;
    larder.manifest("library/app", "1").await;
    let (digest, _) = image.blob(1);
    let path = format!("/v2/library/app/blobs/{digest}");
    let response = client::begin(larder.address, "GET", &path, &[], b"").await;
    let address = larder.address;
    #[expect(clippy::disallowed_methods, reason = "the client is no part of larder")]
    let silent = tokio::spawn(async move {
        client::try_ask(address, "/v2/library/silent/manifests/1").await;
    });
    crate::support::larder::eventually("it is asked", async || {
        !upstream.asked(|s| s.path.contains("/silent/")).is_empty()
    })
    .await;
    tokio::time::timeout(Duration::from_secs(30), larder.stop()).await.expect("it ends by itself");
    let answer = client::finish(response).await;
    assert!(!answer.complete, "what was cut must not look whole");
    silent.abort();
    drop(gate);
    // What was served is kept.
    larder.start().await;
    upstream.unscript();
    assert_eq!(larder.manifest("library/app", "1").await.status, 200);
}
