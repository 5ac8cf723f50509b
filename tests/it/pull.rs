//! Pulling: manifests and blobs as they are upstream, from the store the second time.

use larder::oci::Digest;

use crate::support::Fault;
use crate::support::Larder;
use crate::support::Upstream;
use crate::support::images::image;
use crate::support::images::index;
use crate::support::larder::eventually;
use crate::support::random::bytes;

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_as_it_is_upstream_and_then_from_here() {
    let upstream = Upstream::start().await;
    let image = image(1, &[10, 300_000]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::before(&upstream).await;
    for round in ["cold", "warm"] {
        let manifest = larder.manifest("library/app", "1").await;
        assert!(manifest.status == 200 && manifest.body[..] == image.manifest[..], "{round}");
        assert_eq!(manifest.header("docker-content-digest"), image.digest.to_string());
        assert_eq!(manifest.header("content-type"), image.media_type);
        for (digest, bytes) in &image.blobs {
            let blob = larder.blob("library/app", digest).await;
            assert!(blob.complete && blob.status == 200 && blob.body[..] == bytes[..], "{round} {digest}");
        }
        larder.settled().await;
    }
    let asked = upstream.asked_anything();
    assert_eq!(asked, 1 + image.blobs.len(), "one GET of each part: {:?}", upstream.asked(|_| true));
    assert_eq!(larder.manifest("library/app", "1").await.header("cache-status"), "larder; hit");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_still_here_after_a_restart() {
    let mut upstream = Upstream::start().await;
    let image = image(2, &[70_000]);
    upstream.add("library/app", "1", &image);
    let mut larder = Larder::before(&upstream).await;
    larder.manifest("library/app", "1").await;
    larder.settled().await;
    let (digest, bytes) = image.blob(1);
    assert!(larder.blob("library/app", &digest).await.body[..] == bytes[..]);
    larder.settled().await;
    larder.stop().await;
    upstream.stop().await;
    larder.start().await;
    assert!(larder.manifest("library/app", "1").await.body[..] == image.manifest[..]);
    assert!(larder.blob("library/app", &digest).await.body[..] == bytes[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blobs_of_an_image_are_fetched_when_its_manifest_is_served() {
    let upstream = Upstream::start().await;
    let image = image(3, &[100_000, 200_000]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::before(&upstream).await;
    larder.manifest("library/app", "1").await;
    eventually("all blobs were asked for", async || {
        image.blobs.iter().all(|(digest, _)| upstream.asked(|s| s.is_blob(digest)).len() == 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_and_its_images_are_pulled_by_digest() {
    let upstream = Upstream::start().await;
    let whole = index(&[image(4, &[100]), image(5, &[100])]);
    upstream.add("org/multi", "1", &whole);
    let larder = Larder::before(&upstream).await;
    assert!(larder.manifest("org/multi", "1").await.body[..] == whole.manifest[..]);
    let child = &whole.children[1];
    assert!(larder.manifest("org/multi", &child.digest.to_string()).await.body[..] == child.manifest[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_another_repository_has_needs_the_word_of_this_ones_upstream() {
    let upstream = Upstream::start().await;
    let (private, public) = (image(6, &[50_000]), image(7, &[50_000]));
    upstream.add("acme/private", "1", &private);
    upstream.add("library/public", "1", &public);
    let larder = Larder::before(&upstream).await;
    let (digest, bytes) = private.blob(1);
    assert!(larder.blob("acme/private", &digest).await.body[..] == bytes[..]);
    larder.settled().await;
    let answer = larder.blob("library/public", &digest).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "BLOB_UNKNOWN"));
    // What the upstream confirms is served from here: bytes are shared, permission is not.
    upstream.add("library/public", "2", &private);
    upstream.forget();
    let second = Larder::before(&upstream).await;
    assert!(second.blob("acme/private", &digest).await.body[..] == bytes[..]);
    second.settled().await;
    assert!(second.blob("library/public", &digest).await.body[..] == bytes[..]);
    assert_eq!(upstream.asked(|s| s.is_blob(&digest)).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_served_cold_and_warm() {
    let upstream = Upstream::start().await;
    let image = image(8, &[300_000]);
    let (digest, bytes) = image.blob(1);
    for (range, want) in [
        ("bytes=0-99", 0..100),
        ("bytes=100-", 100..300_000),
        ("bytes=-100", 299_900..300_000),
        ("bytes=200000-900000", 200_000..300_000),
    ] {
        upstream.add("library/app", "1", &image);
        let larder = Larder::before(&upstream).await;
        for round in ["cold", "warm"] {
            let answer = larder.ranged("library/app", &digest, range).await;
            assert_eq!(answer.status, 206, "{range} {round}");
            assert!(answer.body[..] == bytes[want.clone()], "{range} {round}");
            assert_eq!(answer.header("content-range"), format!("bytes {}-{}/300000", want.start, want.end - 1));
            larder.settled().await;
        }
        let past = larder.ranged("library/app", &digest, "bytes=300000-").await;
        assert_eq!((past.status, past.header("content-range")), (416, "bytes */300000"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_byte_never_makes_a_complete_blob() {
    let upstream = Upstream::start().await;
    let image = image(9, &[500_000, 1_000]);
    upstream.add("library/app", "1", &image);
    // On a machine that is busy enough the status line would else go out before the hash is done.
    let larder = Larder::configured(&upstream, r#", "limits": {"verify_wait": "1m"}"#, "").await;
    let (digest, bytes) = image.blob(1);
    upstream.script(move |s| s.path.contains("/blobs/").then_some(Fault::Flip(7)));
    let large = larder.blob("library/app", &digest).await;
    assert!(!large.complete, "a wrong body must break off");
    // What is held back as a whole is an error instead of a broken transfer.
    let (small, small_bytes) = image.blob(2);
    let answer = larder.blob("library/app", &small).await;
    assert_eq!((answer.status, answer.complete), (502, true));
    assert!(crate::support::larder::files(&larder.data().join("blobs")).is_empty(), "nothing wrong is kept");
    eventually("each is counted", async || {
        let metrics = larder.get("/metrics").await;
        String::from_utf8_lossy(&metrics.body).contains("\nlarder_verify_failures_total 2\n")
    })
    .await;
    upstream.unscript();
    assert!(larder.blob("library/app", &digest).await.body[..] == bytes[..]);
    assert!(larder.blob("library/app", &small).await.body[..] == small_bytes[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_not_what_was_asked_for_is_502_and_is_not_kept() {
    let upstream = Upstream::start().await;
    let image = image(10, &[10]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::before(&upstream).await;
    let typed = |media_type: &str| vec![("Content-Type", media_type.to_owned())];
    let other = String::from_utf8(image.manifest.clone()).unwrap().replace("2,", "2 ,").into_bytes();
    let claimed =
        vec![("Content-Type", image.media_type.clone()), ("Docker-Content-Digest", Digest::of(b"x").to_string())];
    let faults = [
        ("another manifest by digest", image.digest.to_string(), Fault::Answer(200, typed(&image.media_type), other)),
        ("a digest header that lies", "1".into(), Fault::Answer(200, claimed, image.manifest.clone())),
        ("HTML", "1".into(), Fault::Answer(200, typed("text/html"), b"<html>sign in</html>".to_vec())),
        ("cut JSON", "1".into(), Fault::Answer(200, typed(&image.media_type), image.manifest[..40].to_vec())),
        ("64 MiB", "1".into(), Fault::Answer(200, typed(&image.media_type), bytes(1, 64 << 20))),
        (
            "an encoded body",
            "1".into(),
            Fault::Answer(
                200,
                [typed(&image.media_type), vec![("Content-Encoding", "gzip".into())]].concat(),
                image.manifest.clone(),
            ),
        ),
    ];
    for (what, reference, fault) in faults {
        upstream.script(move |_| Some(fault.clone()));
        let answer = larder.manifest("library/app", &reference).await;
        // A circuit that is open says 503; it is the same fault.
        assert!(matches!(answer.status, 502 | 503), "{what}: {} {}", answer.status, answer.code());
    }
    assert!(crate::support::larder::files(&larder.data().join("blobs")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_does_not_have_is_404() {
    let upstream = Upstream::start().await;
    upstream.add("library/app", "1", &image(11, &[10]));
    let larder = Larder::before(&upstream).await;
    let tag = larder.manifest("library/app", "2").await;
    assert_eq!((tag.status, tag.code().as_str()), (404, "MANIFEST_UNKNOWN"));
    let blob = larder.blob("library/app", &Digest::of(b"nothing")).await;
    assert_eq!((blob.status, blob.code().as_str()), (404, "BLOB_UNKNOWN"));
    assert_eq!(larder.manifest("library/nothing", "1").await.status, 404);
}
