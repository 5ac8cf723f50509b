//! The MUSTs of the distribution specification's "Pull" and "Content Discovery", each named by its clause, against a
//! proxied repository.

use crate::support::Larder;
use crate::support::Upstream;
use crate::support::images::Image;
use crate::support::images::image;
use crate::support::images::referrer;

async fn held() -> (Upstream, Larder, Image) {
    let upstream = Upstream::start().await;
    let image = image(60, &[100_000]);
    upstream.add("library/app", "v1", &image);
    for tag in ["v2", "v3", "v4"] {
        upstream.add("library/app", tag, &image);
    }
    let larder = Larder::before(&upstream).await;
    (upstream, larder, image)
}

/// "Determining Support": `GET /v2/` MUST be 200 where the specification is implemented.
#[tokio::test(flavor = "multi_thread")]
async fn determining_support() {
    let (upstream, larder, _) = held().await;
    assert_eq!(larder.get("/v2/").await.status, 200);
    assert_eq!(larder.head("/v2/").await.status, 200);
    assert_eq!(upstream.asked_anything(), 0, "it is answered here");
}

/// "Pulling manifests": GET by tag or digest MUST be 200 with the manifest; the digest header names the body's digest;
/// the Content-Type is the manifest's media type.
#[tokio::test(flavor = "multi_thread")]
async fn pulling_manifests_by_tag_and_digest() {
    let (_upstream, larder, image) = held().await;
    for reference in ["v1".to_owned(), image.digest.to_string()] {
        let answer = larder.manifest("library/app", &reference).await;
        assert!(answer.status == 200 && answer.body[..] == image.manifest[..]);
        assert_eq!(answer.header("docker-content-digest"), image.digest.to_string());
        assert_eq!(answer.header("content-type"), image.media_type);
    }
}

/// "Pulling manifests": a manifest that is not found MUST be 404.
#[tokio::test(flavor = "multi_thread")]
async fn pulling_manifests_that_do_not_exist() {
    let (_upstream, larder, _) = held().await;
    assert_eq!(larder.manifest("library/app", "nothing").await.status, 404);
    assert_eq!(larder.manifest("library/app", &larder::oci::Digest::of(b"x").to_string()).await.status, 404);
}

/// "Pulling blobs": GET MUST be 200 with the blob; a Docker-Content-Digest MUST be the digest of the body; what is not
/// found MUST be 404.
#[tokio::test(flavor = "multi_thread")]
async fn pulling_blobs() {
    let (_upstream, larder, image) = held().await;
    let (digest, bytes) = image.blob(1);
    let answer = larder.blob("library/app", &digest).await;
    assert!(answer.status == 200 && answer.body[..] == bytes[..]);
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    assert_eq!(larder.blob("library/app", &larder::oci::Digest::of(b"x")).await.status, 404);
}

/// "Pulling blobs": a registry SHOULD support Range requests (RFC 9110).
#[tokio::test(flavor = "multi_thread")]
async fn pulling_blobs_in_ranges() {
    let (_upstream, larder, image) = held().await;
    let (digest, bytes) = image.blob(1);
    let answer = larder.ranged("library/app", &digest, "bytes=500-1499").await;
    assert!(answer.status == 206 && answer.body[..] == bytes[500..1500]);
    assert_eq!(answer.header("content-range"), "bytes 500-1499/100000");
    assert_eq!(larder.ranged("library/app", &digest, "bytes=500-0").await.status, 416);
}

/// "Checking if content exists in the registry": HEAD MUST be 200 for what exists, with its length and digest as GET
/// would give them, and 404 for what does not.
#[tokio::test(flavor = "multi_thread")]
async fn checking_if_content_exists() {
    let (_upstream, larder, image) = held().await;
    let (digest, bytes) = image.blob(1);
    let manifest = larder.head("/v2/library/app/manifests/v1").await;
    assert_eq!((manifest.status, manifest.header("content-length")), (200, image.manifest.len().to_string().as_str()));
    assert_eq!(manifest.header("docker-content-digest"), image.digest.to_string());
    let blob = larder.head(&format!("/v2/library/app/blobs/{digest}")).await;
    assert_eq!((blob.status, blob.header("content-length")), (200, bytes.len().to_string().as_str()));
    assert_eq!(blob.header("docker-content-digest"), digest.to_string());
    assert_eq!(larder.head("/v2/library/app/manifests/nothing").await.status, 404);
    assert_eq!(larder.head(&format!("/v2/library/app/blobs/{}", larder::oci::Digest::of(b"x"))).await.status, 404);
}

/// "Listing Tags": MUST be 200 with the name and the tags in lexical order; `n` bounds the count, `last` is where it goes
/// on, and a list with more to come has a Link (RFC 5988).
#[tokio::test(flavor = "multi_thread")]
async fn listing_tags() {
    let (upstream, larder, _) = held().await;
    let all = larder.get("/v2/library/app/tags/list").await;
    assert_eq!((all.status, all.json()["name"].as_str()), (200, Some("library/app")));
    assert_eq!(all.json()["tags"], serde_json::json!(["v1", "v2", "v3", "v4"]));
    let page = larder.get("/v2/library/app/tags/list?n=2").await;
    assert_eq!(page.json()["tags"], serde_json::json!(["v1", "v2"]));
    assert!(
        page.header("link").contains("last=v2") && page.header("link").contains("rel=\"next\""),
        "{}",
        page.header("link")
    );
    assert!(!upstream.asked(|s| s.query.contains("n=2")).is_empty(), "the page's size is passed on");
    let rest = larder.get("/v2/library/app/tags/list?n=2&last=v2").await;
    assert_eq!(rest.json()["tags"], serde_json::json!(["v3", "v4"]));
    let none = larder.get("/v2/library/app/tags/list?n=0").await;
    assert_eq!((none.status, none.json()["tags"].clone()), (200, serde_json::json!([])));
}

/// "Listing Referrers": MUST be 200 with an image index whose descriptors carry artifactType and annotations; the filter
/// that was applied MUST be named; a digest that nothing refers to MUST be an empty list.
#[tokio::test(flavor = "multi_thread")]
async fn listing_referrers() {
    let (upstream, larder, image) = held().await;
    let signature = referrer(1, &image, "application/vnd.test.signature");
    upstream.add("library/app", "", &signature);
    upstream.add("library/app", "", &referrer(2, &image, "application/vnd.test.sbom"));
    let path = format!("/v2/library/app/referrers/{}", image.digest);
    let all = larder.get(&path).await;
    assert_eq!((all.status, all.header("content-type")), (200, "application/vnd.oci.image.index.v1+json"));
    assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 2);
    let filtered = larder.get(&format!("{path}?artifactType=application/vnd.test.signature")).await;
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    let listed = filtered.json()["manifests"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["digest"], signature.digest.to_string());
    assert_eq!(listed[0]["annotations"]["of"], "1");
    let none = larder.get(&format!("/v2/library/app/referrers/{}", larder::oci::Digest::of(b"x"))).await;
    assert_eq!((none.status, none.json()["manifests"].clone()), (200, serde_json::json!([])));
}

/// "Unavailable Referrers API": a registry without the API answers 404, and the client looks for the tag.
#[tokio::test(flavor = "multi_thread")]
async fn referrers_of_an_upstream_without_the_api() {
    let (upstream, larder, image) = held().await;
    upstream.has_no_referrers_api();
    assert_eq!(larder.get(&format!("/v2/library/app/referrers/{}", image.digest)).await.status, 404);
}

/// "Errors": a 4xx with a body MUST have it in the specification's form.
#[tokio::test(flavor = "multi_thread")]
async fn errors_have_the_form_of_the_specification() {
    let (_upstream, larder, _) = held().await;
    for (path, code) in [
        ("/v2/library/app/manifests/nothing", "MANIFEST_UNKNOWN"),
        ("/v2/library/app/blobs/sha256:xyz", "DIGEST_INVALID"),
        ("/v2/UPPER/app/manifests/1", "NAME_INVALID"),
        ("/v2/evil.test/app/manifests/1", "NAME_UNKNOWN"),
    ] {
        let answer = larder.get(path).await;
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
        assert_eq!(answer.code(), code, "{path}");
        assert!(answer.header("content-type").starts_with("application/json"), "{path}");
    }
}

/// "Registry Proxying": a registry that uses `ns` SHOULD return it as `OCI-Namespace`.
#[tokio::test(flavor = "multi_thread")]
async fn the_namespace_is_named_back() {
    let (_upstream, larder, image) = held().await;
    let answer = larder.get("/v2/library/app/manifests/v1?ns=docker.io").await;
    assert_eq!((answer.status, answer.header("oci-namespace")), (200, "docker.io"));
    assert!(answer.body[..] == image.manifest[..]);
    assert_eq!(larder.manifest("library/app", "v1").await.header("oci-namespace"), "");
}
