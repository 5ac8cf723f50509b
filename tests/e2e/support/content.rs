//! Pushing to a registry by hand, and looking whether all that a tag names is there.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::client;
use super::client::Answer;
use super::images::Image;
use super::images::digest;

/// Pushes an image, or an index and its images, under a tag.
pub(crate) fn push(registry: &str, repository: &str, tag: &str, image: &Image) {
    for part in &image.images {
        push(registry, repository, &part.digest(), part);
    }
    for blob in &image.blobs {
        push_blob(registry, repository, blob);
    }
    let url = format!("{registry}/v2/{repository}/manifests/{tag}");
    let answer = client::send(Method::PUT, &url, image.media_type, Bytes::from(image.manifest.clone()))
        .expect("pushing a manifest");
    assert_eq!(answer.status, 201, "pushing {repository}:{tag}: {answer:?}");
}

fn push_blob(registry: &str, repository: &str, blob: &[u8]) {
    let begun = client::send(Method::POST, &format!("{registry}/v2/{repository}/blobs/uploads/"), "", Bytes::new())
        .expect("beginning an upload");
    assert_eq!(begun.status, 202, "beginning an upload to {repository}: {begun:?}");
    let session = begun.header("location");
    let session = if session.starts_with('/') { format!("{registry}{session}") } else { session.to_owned() };
    let at = if session.contains('?') { '&' } else { '?' };
    let url = format!("{session}{at}digest={}", digest(blob));
    let answer = client::send(Method::PUT, &url, "application/octet-stream", Bytes::copy_from_slice(blob))
        .expect("uploading a blob");
    assert_eq!(answer.status, 201, "uploading to {repository}: {answer:?}");
}

/// The answer to a GET of a manifest.
pub(crate) fn manifest(registry: &str, repository: &str, reference: &str) -> Answer {
    client::get(&format!("{registry}/v2/{repository}/manifests/{reference}")).expect("asking for a manifest")
}

/// Reads everything that a manifest leads to, compares each with its digest, and returns the manifest's own.
#[track_caller]
pub(crate) fn assert_whole(registry: &str, repository: &str, reference: &str) -> String {
    let answer = manifest(registry, repository, reference);
    assert_eq!(answer.status, 200, "{repository}:{reference}: {answer:?}");
    let own = digest(&answer.body);
    assert_eq!(answer.header("docker-content-digest"), own, "{repository}:{reference}: {answer:?}");
    let document: Value = serde_json::from_slice(&answer.body).expect("a manifest is JSON");
    let listed = |key: &str| document[key].as_array().cloned().unwrap_or_default();
    let of_manifest = |entry: &Value| entry["mediaType"].as_str().is_some_and(|kind| kind.contains("manifest"));
    let (children, blobs): (Vec<Value>, Vec<Value>) = listed("manifests").into_iter().partition(of_manifest);
    for child in children {
        let named = child["digest"].as_str().expect("a descriptor has a digest");
        assert_eq!(assert_whole(registry, repository, named), named);
    }
    let config = document.get("config").cloned();
    for blob in config.into_iter().chain(listed("layers")).chain(blobs) {
        let named = blob["digest"].as_str().expect("a descriptor has a digest");
        let url = format!("{registry}/v2/{repository}/blobs/{named}");
        let got = client::get(&url).expect("asking for a blob");
        assert_eq!(got.status, 200, "{url}, which {repository}:{reference} names: {}", got.status);
        assert_eq!(digest(&got.body), named, "{url}");
    }
    own
}
