//! What lives here alone, pushed into a folder by a larder that anybody may push to.

use std::path::Path;

use super::Larder;
use super::Upstream;
use super::client;
use super::images::Image;
use super::push::push;

/// Pushes images: each with its repository and its tag; by its digest alone where the tag is empty.
pub async fn put(data: &Path, images: &[(&str, &str, &Image)]) {
    let upstream = Upstream::start().await;
    let mut larder = Larder::at(&upstream, data).await;
    for (repository, tag, image) in images {
        put_one(&larder, repository, tag, image).await;
    }
    larder.stop().await;
}

async fn put_one(larder: &Larder, repository: &str, tag: &str, image: &Image) {
    for child in &image.children {
        Box::pin(put_one(larder, repository, "", child)).await;
    }
    for (_, bytes) in &image.blobs {
        push(larder, repository, bytes).await;
    }
    let reference = if tag.is_empty() { image.digest.to_string() } else { tag.to_owned() };
    manifest(larder, &format!("/v2/{repository}/manifests/{reference}"), image).await;
}

/// Pushes the manifest of an image whose blobs are there.
pub async fn manifest(larder: &Larder, path: &str, image: &Image) {
    let headers = [("Content-Type", image.media_type.as_str())];
    let pushed = client::ask(larder.address, "PUT", path, &headers, &image.manifest).await;
    assert_eq!(pushed.status, 201, "{}", String::from_utf8_lossy(&pushed.body));
}
