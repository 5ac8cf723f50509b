//! Broken and stalled transfers go on where they stopped; wrong ones break.

use crate::support::Fault;
use crate::support::Larder;
use crate::support::Upstream;
use crate::support::images::image;

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_body_resumes_at_its_offset() {
    let mut upstream = Upstream::start().await;
    let image = image(30, &[1_000_000]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::before(&upstream).await;
    let (digest, bytes) = image.blob(1);
    upstream.script_once(move |s| s.is_blob(&digest), Fault::Cut(600_000));
    let answer = larder.blob("library/app", &digest).await;
    assert!(answer.complete && answer.body[..] == bytes[..]);
    let ranges: Vec<String> =
        upstream.asked(|s| s.is_blob(&digest)).iter().map(|s| s.header("range").to_owned()).collect();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    assert!(ranges[1].starts_with("bytes=") && ranges[1] != "bytes=0-", "{ranges:?}");
    let resumed = upstream.asked(|s| s.is_blob(&digest) && !s.header("if-range").is_empty());
    assert_eq!(resumed.len(), 1, "the second request is bound to the first answer's validator");
    upstream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_body_is_noticed_and_resumed() {
    let upstream = Upstream::start().await;
    let image = image(31, &[1_000_000]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::configured(&upstream, "", r#", "limits": {"stall": "200ms"}"#).await;
    let (digest, bytes) = image.blob(1);
    upstream.script_once(move |s| s.is_blob(&digest), Fault::Stall(300_000));
    let answer = larder.blob("library/app", &digest).await;
    assert!(answer.complete && answer.body[..] == bytes[..]);
    assert_eq!(upstream.asked(|s| s.is_blob(&digest)).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_does_not_come_back_breaks_and_the_next_request_goes_on_from_what_is_there() {
    let upstream = Upstream::start().await;
    let image = image(32, &[1_000_000]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::configured(&upstream, "", r#", "limits": {"retries": 0, "stall": "200ms"}"#).await;
    let (digest, bytes) = image.blob(1);
    upstream.script(move |s| {
        s.is_blob(&digest).then(|| if s.header("range").is_empty() { Fault::Cut(600_000) } else { Fault::Stall(0) })
    });
    let answer = larder.blob("library/app", &digest).await;
    assert!(!answer.complete, "never a short body that ends cleanly");
    larder.settled().await;
    upstream.unscript();
    upstream.forget();
    assert!(larder.blob("library/app", &digest).await.body[..] == bytes[..]);
    let again = upstream.asked(|s| s.is_blob(&digest));
    assert!(again.len() == 1 && again[0].header("range").starts_with("bytes="), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_ignores_the_range_is_read_past_what_is_here() {
    let upstream = Upstream::start().await;
    let image = image(33, &[800_000]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::before(&upstream).await;
    let (digest, bytes) = image.blob(1);
    let whole = bytes.clone();
    upstream.script(move |s| {
        s.is_blob(&digest).then(|| match s.header("range") {
            "" => Fault::Cut(500_000),
            _ => Fault::Answer(200, vec![("Content-Type", "application/octet-stream".into())], whole.clone()),
        })
    });
    assert!(larder.blob("library/app", &digest).await.body[..] == bytes[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_another_size_than_the_manifest_says_is_refused() {
    let upstream = Upstream::start().await;
    let image = image(34, &[100_000]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::before(&upstream).await;
    let (digest, bytes) = image.blob(1);
    let long = [bytes, vec![0; 70_000]].concat();
    upstream.script(move |s| s.is_blob(&digest).then(|| Fault::Answer(200, Vec::new(), long.clone())));
    larder.manifest("library/app", "1").await;
    let answer = larder.blob("library/app", &digest).await;
    assert!(answer.status == 502 || !answer.complete, "{}", answer.status);
    assert!(larder.blob("library/app", &image.blob(0).0).await.complete);
}
