//! One upstream transfer per thing, whatever the clients do.

use std::sync::Arc;

use futures_util::future::join_all;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use crate::support::Fault;
use crate::support::Larder;
use crate::support::Upstream;
use crate::support::client;
use crate::support::images::image;
use crate::support::larder::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_of_a_cold_image_make_one_request_for_each_part() {
    let upstream = Upstream::start().await;
    let image = image(20, &[400_000]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::before(&upstream).await;
    let (digest, bytes) = image.blob(1);
    let pulls = join_all((0..100).map(|_| async {
        let manifest = larder.manifest("library/app", "1").await;
        (manifest.body, larder.blob("library/app", &digest).await.body)
    }))
    .await;
    assert!(pulls.iter().all(|(m, b)| m[..] == image.manifest[..] && b[..] == bytes[..]));
    assert_eq!(upstream.asked(|s| s.path.contains("/manifests/")).len(), 1);
    assert_eq!(upstream.asked(|s| s.is_blob(&digest)).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_get_bytes_while_the_transfer_goes_on_and_a_late_one_joins() {
    let upstream = Upstream::start().await;
    let image = image(21, &[1_000_000]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::before(&upstream).await;
    let (digest, bytes) = image.blob(1);
    let gate = Arc::new(Semaphore::new(0));
    let held = Fault::Gate(600_000, Arc::clone(&gate));
    upstream.script(move |s| s.is_blob(&digest).then(|| held.clone()));
    let path = format!("/v2/library/app/blobs/{digest}");
    let mut first = client::begin(larder.address, "GET", &path, &[], b"").await;
    let mut got = 0;
    while got < 500_000 {
        got += first.body_mut().frame().await.unwrap().unwrap().data_ref().unwrap().len();
    }
    let late = client::begin(larder.address, "GET", &path, &[], b"").await;
    // The first leaves; the transfer goes on.
    drop(first);
    gate.add_permits(1);
    let late = client::finish(late).await;
    assert!(late.complete && late.body[..] == bytes[..]);
    assert!(late.header("cache-status").contains("collapsed"), "{}", late.header("cache-status"));
    assert_eq!(upstream.asked(|s| s.is_blob(&digest)).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_all_clients_left_is_finished() {
    let upstream = Upstream::start().await;
    let image = image(22, &[500_000]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::before(&upstream).await;
    let (digest, bytes) = image.blob(1);
    let gate = Arc::new(Semaphore::new(0));
    let held = Fault::Gate(100_000, Arc::clone(&gate));
    upstream.script(move |s| s.is_blob(&digest).then(|| held.clone()));
    drop(client::begin(larder.address, "GET", &format!("/v2/library/app/blobs/{digest}"), &[], b"").await);
    gate.add_permits(1);
    eventually("the blob is held", async || {
        larder.blob("library/app", &digest).await.header("cache-status") == "larder; hit"
    })
    .await;
    assert!(larder.blob("library/app", &digest).await.body[..] == bytes[..]);
    assert_eq!(upstream.asked(|s| s.is_blob(&digest)).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_far_ahead_is_fetched_on_its_own_and_nothing_twice() {
    let upstream = Upstream::start().await;
    let image = image(23, &[12 << 20]);
    upstream.add("library/app", "1", &image);
    // The front waits for as long as the test takes.
    let larder = Larder::configured(&upstream, "", r#", "limits": {"stall": "10m"}"#).await;
    let (digest, bytes) = image.blob(1);
    let gate = Arc::new(Semaphore::new(0));
    let held = Fault::Gate(100_000, Arc::clone(&gate));
    upstream.script(move |s| (s.is_blob(&digest) && s.header("range").is_empty()).then(|| held.clone()));
    let whole = client::begin(larder.address, "GET", &format!("/v2/library/app/blobs/{digest}"), &[], b"").await;
    // The front stands still; the part ahead comes all the same.
    let part = larder.ranged("library/app", &digest, "bytes=8000000-8000999").await;
    assert!(part.status == 206 && part.body[..] == bytes[8_000_000..8_001_000]);
    assert!(part.header("cache-status").contains("detail=unverified"), "{}", part.header("cache-status"));
    gate.add_permits(1);
    assert!(client::finish(whole).await.body[..] == bytes[..]);
    // The front up to the part, the part, and what follows it.
    let ranges: Vec<String> =
        upstream.asked(|s| s.is_blob(&digest)).iter().map(|s| s.header("range").to_owned()).collect();
    assert_eq!(ranges, ["", "bytes=8000000-8000999", "bytes=8001000-12582911"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_blob_in_flight_is_not_given_to_who_only_names_its_digest() {
    let upstream = Upstream::start().await;
    let (private, public) = (image(24, &[500_000]), image(25, &[10]));
    upstream.add("acme/private", "1", &private);
    upstream.add("library/public", "1", &public);
    let larder = Larder::before(&upstream).await;
    let (digest, _) = private.blob(1);
    let gate = Arc::new(Semaphore::new(0));
    let held = Fault::Gate(100_000, Arc::clone(&gate));
    upstream.script(move |s| (s.is_blob(&digest) && s.path.contains("private")).then(|| held.clone()));
    let first = client::begin(larder.address, "GET", &format!("/v2/acme/private/blobs/{digest}"), &[], b"").await;
    assert_eq!(larder.blob("library/public", &digest).await.status, 404);
    gate.add_permits(1);
    assert!(client::finish(first).await.complete);
}
