//! Tags: when the upstream is asked, and with what.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;

use crate::support::Larder;
use crate::support::Upstream;
use crate::support::images::image;
use crate::support::larder::eventually;

const SHORT: &str = r#", "freshness": [{"match": "**", "fresh_for": "1m", "stale_while_revalidate": "10m"}]"#;
const NO_GRACE: &str = r#", "freshness": [{"match": "**", "fresh_for": "1m", "stale_while_revalidate": "0s"}]"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_tag_asks_nothing_and_at_the_end_of_freshness_many_clients_make_one_head() {
    let upstream = Upstream::start().await;
    let image = image(40, &[10]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::configured(&upstream, NO_GRACE, "").await;
    larder.manifest("library/app", "1").await;
    larder.settled().await;
    upstream.forget();
    larder.manifest("library/app", "1").await;
    assert_eq!(upstream.asked_anything(), 0);
    larder.advance(Duration::from_secs(61));
    let answers = join_all((0..50).map(|_| larder.manifest("library/app", "1"))).await;
    assert!(answers.iter().all(|a| a.body[..] == image.manifest[..]));
    assert!(
        answers.iter().any(|a| a.header("cache-status").contains("revalidated")),
        "{}",
        answers[0].header("cache-status")
    );
    let asked = upstream.asked(|_| true);
    assert!(asked.len() == 1 && asked[0].method == Method::HEAD, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moved_is_fetched_by_digest() {
    let upstream = Upstream::start().await;
    let (old, new) = (image(41, &[10]), image(42, &[10]));
    upstream.add("library/app", "1", &old);
    let larder = Larder::configured(&upstream, NO_GRACE, "").await;
    larder.manifest("library/app", "1").await;
    larder.settled().await;
    upstream.add("library/app", "1", &new);
    larder.advance(Duration::from_secs(61));
    upstream.forget();
    assert!(larder.manifest("library/app", "1").await.body[..] == new.manifest[..]);
    let asked: Vec<String> =
        upstream.asked(|s| s.path.contains("/manifests/")).iter().map(|s| format!("{} {}", s.method, s.path)).collect();
    assert_eq!(
        asked,
        ["HEAD /v2/library/app/manifests/1".to_owned(), format!("GET /v2/library/app/manifests/{}", new.digest)]
    );
    // The old one is still there by its digest.
    assert!(larder.manifest("library/app", &old.digest.to_string()).await.body[..] == old.manifest[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_tag_is_served_at_once_and_looked_at_behind() {
    let upstream = Upstream::start().await;
    let (old, new) = (image(43, &[10]), image(44, &[10]));
    upstream.add("library/app", "1", &old);
    let larder = Larder::configured(&upstream, SHORT, "").await;
    larder.manifest("library/app", "1").await;
    larder.settled().await;
    upstream.add("library/app", "1", &new);
    larder.advance(Duration::from_secs(61));
    let answer = larder.manifest("library/app", "1").await;
    assert!(answer.body[..] == old.manifest[..]);
    assert_eq!(answer.header("cache-status"), "larder; hit; detail=stale-while-revalidate");
    eventually("the new one is served", async || {
        larder.manifest("library/app", "1").await.body[..] == new.manifest[..]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_tag_is_never_asked_for_again() {
    let upstream = Upstream::start().await;
    upstream.add("library/app", "sha-0123", &image(45, &[10]));
    let larder = Larder::before(&upstream).await;
    larder.manifest("library/app", "sha-0123").await;
    larder.settled().await;
    upstream.forget();
    larder.advance(Duration::from_secs(365 * 86_400));
    assert_eq!(larder.manifest("library/app", "sha-0123").await.status, 200);
    assert_eq!(upstream.asked_anything(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_used_near_the_end_of_its_freshness_is_looked_at_ahead_of_time() {
    let upstream = Upstream::start().await;
    upstream.add("library/app", "1", &image(46, &[10]));
    let larder = Larder::configured(&upstream, NO_GRACE, "").await;
    larder.manifest("library/app", "1").await;
    larder.settled().await;
    upstream.forget();
    larder.advance(Duration::from_secs(50));
    assert_eq!(larder.manifest("library/app", "1").await.header("cache-status"), "larder; hit");
    eventually("it was looked at", async || upstream.asked(|s| s.method == Method::HEAD).len() == 1).await;
    larder.advance(Duration::from_secs(50));
    eventually("it is fresh again", async || {
        larder.manifest("library/app", "1").await.header("cache-status") == "larder; hit"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_is_gone_is_404_and_its_digest_stays() {
    let mut upstream = Upstream::start().await;
    let image = image(47, &[10]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::configured(&upstream, NO_GRACE, "").await;
    larder.manifest("library/app", "1").await;
    larder.settled().await;
    upstream.remove_tag("library/app", "1");
    larder.advance(Duration::from_secs(61));
    let gone = larder.manifest("library/app", "1").await;
    assert_eq!((gone.status, gone.code().as_str()), (404, "MANIFEST_UNKNOWN"));
    assert_eq!(larder.manifest("library/app", &image.digest.to_string()).await.status, 200);
    // Gone is gone: an outage does not bring it back.
    upstream.stop().await;
    eventually("a fault, not the old copy", async || larder.manifest("library/app", "1").await.status != 404).await;
    assert_ne!(larder.manifest("library/app", "1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_gone_takes_its_tags_with_it_and_comes_back_soon() {
    let upstream = Upstream::start().await;
    let image = image(48, &[10]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::configured(&upstream, NO_GRACE, "").await;
    larder.manifest("library/app", "1").await;
    larder.settled().await;
    upstream.remove_repository("library/app");
    larder.advance(Duration::from_secs(61));
    assert_eq!(larder.manifest("library/app", "1").await.status, 404);
    assert_eq!(larder.manifest("library/app", &image.digest.to_string()).await.status, 200);
    upstream.add("library/app", "1", &image);
    eventually("it is seen again", async || larder.manifest("library/app", "1").await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_is_asked_for_each_time_is_never_answered_with_what_was_there_before() {
    let upstream = Upstream::start().await;
    let always = r#", "freshness": [{"match": "**", "fresh_for": "0s", "stale_while_revalidate": "0s"}]"#;
    let larder = Larder::configured(&upstream, always, "").await;
    // The commit of each answer is still under way when the next pull comes.
    for n in 0..20 {
        let image = image(500 + n, &[10]);
        upstream.add("library/app", "1", &image);
        let answer = larder.manifest("library/app", "1").await;
        assert!(answer.body[..] == image.manifest[..], "{n}: {}", answer.header("cache-status"));
    }
    let gets = upstream.asked(|s| s.method == Method::GET && s.path.ends_with("/manifests/1"));
    assert_eq!(gets.len(), 1, "what is held is asked for by HEAD, which is free: {gets:?}");
}
