//! What clients pulled is known, in the process and after it.

use std::time::Duration;

use larder::clock::Timestamp;

use crate::support::Larder;
use crate::support::Upstream;
use crate::support::hosted;
use crate::support::images::image;
use crate::support::larder::eventually;
use crate::support::larder::files;

/// When a tag was used last, as `larder ls` tells it.
async fn used_at(larder: &Larder, repository: &str) -> Option<String> {
    let tags = larder.ask_admin("GET", &format!("/api/v1/tags?repository={repository}")).await;
    tags.json()["tags"][0]["used_at"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn times_of_use_survive_the_loss_of_the_index() {
    let (upstream, folder) = (Upstream::start().await, tempfile::tempdir().unwrap());
    let (proxied, pushed, unused) = (image(900, &[10]), image(901, &[10]), image(902, &[10]));
    upstream.add("library/app", "1", &proxied);
    hosted::put(folder.path(), &[("cache/app", "1", &pushed), ("cache/unused", "1", &unused)]).await;
    let mut larder = Larder::at(&upstream, folder.path()).await;
    assert_eq!(larder.manifest("library/app", "1").await.status, 200);
    larder.settled().await;
    larder.advance(Duration::from_secs(3600));
    assert_eq!(larder.manifest("cache/app", "1").await.status, 200);
    // A pusher's look is no use.
    let looked = larder
        .ask("HEAD", "/v2/cache/unused/manifests/1", &[("Accept", "application/vnd.oci.image.manifest.v1+json")])
        .await;
    assert_eq!(looked.status, 200);
    larder.stop().await;
    assert!(!files(&folder.path().join("history")).is_empty());
    std::fs::remove_file(folder.path().join("index.redb")).unwrap();
    larder.start().await;
    let at = |seconds: u64| Some(Timestamp(1_790_000_000_000 + seconds * 1000).to_string());
    for (repository, wanted) in [("docker.io/library/app", at(0)), ("cache/app", at(3600))] {
        eventually(repository, async || used_at(&larder, repository).await == wanted).await;
    }
    assert_eq!(used_at(&larder, "cache/unused").await, None);
    larder.stop().await;
}
