//! Upstreams that lie, break and tempt.

use crate::support::Fault;
use crate::support::Larder;
use crate::support::Upstream;
use crate::support::images::Image;
use crate::support::images::image;
use larder::oci::Digest;

/// A manifest of a type that nobody knows yet.
fn unknown(media_type: &str, with_field: bool) -> Image {
    let field = if with_field { format!(r#""mediaType":"{media_type}","#) } else { String::new() };
    let manifest = format!(r#"{{{field}"things":[1,2,3], "of": 1}}"#).into_bytes();
    Image {
        digest: Digest::of(&manifest),
        manifest,
        media_type: media_type.into(),
        blobs: Vec::new(),
        children: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_of_types_that_are_not_known_yet_pass_through() {
    let upstream = Upstream::start().await;
    let larder = Larder::before(&upstream).await;
    for (tag, with_field) in [("1", true), ("2", false)] {
        let image = unknown("application/vnd.acme.thing.v7+json", with_field);
        upstream.add("library/app", tag, &image);
        for _ in 0..2 {
            for reference in [tag.to_owned(), image.digest.to_string()] {
                let answer = larder.manifest("library/app", &reference).await;
                assert_eq!(answer.status, 200, "{reference}");
                assert!(answer.body[..] == image.manifest[..]);
                assert_eq!(answer.header("content-type"), image.media_type);
            }
            larder.settled().await;
            larder.advance(std::time::Duration::from_secs(3600));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_as_no_manifests_type_is_none() {
    let upstream = Upstream::start().await;
    let image = image(330, &[10]);
    upstream.add("library/app", "1", &image);
    let utf16: Vec<u8> =
        String::from_utf8(image.manifest.clone()).unwrap().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let schema1 = br#"{"schemaVersion":1,"name":"library/app","tag":"1","fsLayers":[],"history":[]}"#.to_vec();
    for (media_type, body) in [
        ("application/json", image.manifest.clone()),
        ("application/octet-stream", image.manifest.clone()),
        ("text/plain; charset=utf-8", image.manifest.clone()),
        ("application/problem+json", b"{}".to_vec()),
        ("application/xhtml+xml", b"<html/>".to_vec()),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", schema1.clone()),
        ("application/vnd.docker.distribution.manifest.v1+json", schema1),
        (image.media_type.as_str(), utf16),
    ] {
        let (kind, sent) = (media_type.to_owned(), body.clone());
        upstream.script(move |_| Some(Fault::Answer(200, vec![("Content-Type", kind.clone())], sent.clone())));
        for reference in ["1".to_owned(), Digest::of(&body).to_string()] {
            let larder = Larder::before(&upstream).await;
            let answer = larder.manifest("library/app", &reference).await;
            assert_eq!(answer.status, 502, "{media_type} {reference}");
            assert_eq!(larder.head(&format!("/v2/library/app/manifests/{reference}")).await.status / 100, 5);
        }
    }
}
