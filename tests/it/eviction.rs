//! What goes when the store is full.

use std::time::Duration;

use crate::support::Larder;
use crate::support::Upstream;
use crate::support::client;
use crate::support::images::Image;
use crate::support::images::image;
use crate::support::larder::eventually;

async fn evicted(larder: &Larder) -> bool {
    let metrics = client::ask(larder.admin, "GET", "/metrics", &[], b"").await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    text.lines().any(|line| line.starts_with("larder_evicted_bytes_total ") && !line.ends_with(" 0"))
}

async fn pull(larder: &Larder, n: usize) {
    larder.advance(Duration::from_secs(60));
    assert_eq!(larder.manifest(&format!("library/app{n}"), "1").await.status, 200);
    larder.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pulled_often_outlives_what_was_pulled_since_over_restarts() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    let images: Vec<Image> = (0..4).map(|n| image(910 + n, &[300_000])).collect();
    for (n, image) in images.iter().enumerate() {
        upstream.add(&format!("library/app{n}"), "1", image);
    }
    let more = r#", "store": {"max_size": "1MiB"}"#;
    let mut larder = Larder::configured_at(&upstream, folder.path(), more).await;
    // Uses of one image within seconds are one use; each process has its own.
    for _ in 0..3 {
        pull(&larder, 0).await;
        larder.stop().await;
        larder.start().await;
    }
    for n in 1..4 {
        pull(&larder, n).await;
    }
    eventually("something was evicted", async || evicted(&larder).await).await;
    upstream.forget();
    for (n, stays) in [(0, true), (1, false)] {
        let (layer, _) = images[n].blob(1);
        assert_eq!(larder.blob(&format!("library/app{n}"), &layer).await.status, 200);
        assert_eq!(upstream.asked(|seen| seen.is_blob(&layer)).is_empty(), stays, "app{n}");
    }
    larder.stop().await;
}
