//! The upstream is gone, or says something of no use: what is held is served, what is not is never called absent.

use std::time::Duration;

use crate::support::Fault;
use crate::support::Larder;
use crate::support::Upstream;
use crate::support::images::image;
use crate::support::larder::eventually;

const NO_GRACE: &str = r#", "freshness": [{"match": "**", "fresh_for": "1m", "stale_while_revalidate": "0s"}]"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_serves_what_is_held_and_is_no_404_for_what_is_not() {
    let image = image(50, &[100_000]);
    let html = || vec![("Content-Type", "text/html".to_owned())];
    let faults = [
        ("500", Fault::Answer(500, Vec::new(), Vec::new()), 502),
        ("502 with HTML", Fault::Answer(502, html(), b"<html>".to_vec()), 502),
        ("503", Fault::Answer(503, vec![("Retry-After", "5".into())], Vec::new()), 502),
        ("429", Fault::Answer(429, vec![("Retry-After", "3".into())], Vec::new()), 429),
        ("200 with HTML", Fault::Answer(200, html(), b"<html>sign in</html>".to_vec()), 502),
        ("silence", Fault::Silent, 504),
    ];
    for (what, fault, status) in faults {
        let upstream = Upstream::start().await;
        upstream.add("library/held", "1", &image);
        let larder =
            Larder::configured(&upstream, NO_GRACE, r#", "limits": {"stale_answer": "300ms", "headers": "500ms"}"#)
                .await;
        larder.manifest("library/held", "1").await;
        larder.settled().await;
        larder.advance(Duration::from_secs(61));
        upstream.script(move |_| Some(fault.clone()));
        let cold = larder.manifest("library/cold", "1").await;
        assert!(cold.status == status || cold.status == 503, "{what}: {}", cold.status);
        assert!(
            !matches!(cold.status, 429 | 503) || cold.header("retry-after").parse::<u32>().is_ok_and(|s| s >= 1),
            "{what}"
        );
        for _ in 0..3 {
            let held = larder.manifest("library/held", "1").await;
            assert!(held.status == 200 && held.body[..] == image.manifest[..], "{what}");
            assert!(held.header("cache-status").contains("stale"), "{what}: {}", held.header("cache-status"));
            assert!(held.header("warning").starts_with("299 - \"stale"), "{what}: {}", held.header("warning"));
        }
        let digest = larder.manifest("library/held", &image.digest.to_string()).await;
        assert_eq!((digest.status, digest.header("cache-status")), (200, "larder; hit"), "{what}");
        assert!(larder.blob("library/held", &image.blob(1).0).await.body[..] == image.blob(1).1[..], "{what}");
        assert_eq!(larder.get("/readyz").await.status, 200, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_gone_is_noticed_and_comes_back_by_itself() {
    let mut upstream = Upstream::start().await;
    upstream.add("library/held", "1", &image(51, &[10]));
    upstream.add("library/cold", "1", &image(52, &[10]));
    let larder = Larder::configured(&upstream, NO_GRACE, "").await;
    larder.manifest("library/held", "1").await;
    larder.settled().await;
    larder.advance(Duration::from_secs(61));
    upstream.stop().await;
    assert_eq!(larder.manifest("library/held", "1").await.status, 200);
    let cold = larder.manifest("library/cold", "1").await;
    assert_eq!(cold.status, 503);
    assert!(
        cold.header("retry-after").parse::<u32>().is_ok_and(|s| (1..=75).contains(&s)),
        "{}",
        cold.header("retry-after")
    );
    upstream.restart().await;
    eventually("it is asked again", async || larder.manifest("library/cold", "1").await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_no_outage() {
    let upstream = Upstream::start().await;
    let image = image(53, &[10]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::configured(&upstream, NO_GRACE, "").await;
    larder.manifest("library/app", "1").await;
    larder.settled().await;
    larder.advance(Duration::from_secs(61));
    upstream.script(|_| Some(Fault::Answer(403, Vec::new(), br#"{"errors":[{"code":"DENIED"}]}"#.to_vec())));
    let answer = larder.manifest("library/app", "1").await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "DENIED"));
    assert_eq!(larder.manifest("library/app", &image.digest.to_string()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_too_old_is_not_served() {
    let mut upstream = Upstream::start().await;
    upstream.add("library/app", "1", &image(54, &[10]));
    let short = r#", "freshness": [{"match": "**", "fresh_for": "1m", "stale_while_revalidate": "0s", "stale_if_error": "1h"}]"#;
    let larder = Larder::configured(&upstream, short, "").await;
    larder.manifest("library/app", "1").await;
    larder.settled().await;
    upstream.stop().await;
    larder.advance(Duration::from_secs(3_500));
    assert_eq!(larder.manifest("library/app", "1").await.status, 200);
    larder.advance(Duration::from_secs(200));
    assert_eq!(larder.manifest("library/app", "1").await.status, 503);
}
