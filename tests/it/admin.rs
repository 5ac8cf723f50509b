//! What the API tells whoever runs the server.

use crate::support::Larder;
use crate::support::Upstream;
use crate::support::client;
use crate::support::images::image;

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_was_used_as_soon_as_it_was_pulled() {
    let upstream = Upstream::start().await;
    upstream.add("library/app", "1", &image(320, &[1000]));
    let larder = Larder::before(&upstream).await;
    assert_eq!(larder.manifest("library/app", "1").await.status, 200);
    larder.settled().await;
    let listed = client::ask(larder.admin, "GET", "/api/v1/tags?repository=docker.io/library/app", &[], b"").await;
    assert_eq!(listed.json()["tags"][0]["tag"], "1");
    assert!(listed.json()["tags"][0]["used_at"].is_string(), "{}", listed.json());
}
