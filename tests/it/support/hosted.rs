//! What lives here alone, pushed into a folder by a larder that anybody may push to.

use std::path::Path;

use super::Larder;
use super::Upstream;
use super::images::Image;
use super::push;

/// Pushes images: each with its repository and its tag; by its digest alone where the tag is empty.
pub async fn put(data: &Path, images: &[(&str, &str, &Image)]) {
    let upstream = Upstream::start().await;
    let mut larder = Larder::at(&upstream, data).await;
    for (repository, tag, image) in images {
        let reference = if tag.is_empty() { image.digest.to_string() } else { (*tag).to_owned() };
        assert_eq!(push::image(&larder, repository, &reference, image).await.status, 201);
    }
    larder.stop().await;
}

/// Pushes the manifest of an image whose blobs are there.
pub async fn manifest(larder: &Larder, path: &str, image: &Image) {
    let headers = [("Content-Type", image.media_type.as_str())];
    let pushed = push::send(larder, "PUT", path, &headers, &image.manifest).await;
    assert_eq!(pushed.status, 201, "{}", String::from_utf8_lossy(&pushed.body));
}
