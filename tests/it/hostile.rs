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

/// A redirect to a host that is not there: that blob fails, and nothing else of the upstream.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_of_blobs_that_fails_leaves_the_registry_up() {
    let upstream = Upstream::start().await;
    let image = image(331, &[100_000, 100_000]);
    upstream.add("library/app", "1", &image);
    upstream.add("library/app", "2", &image);
    let (held, _) = image.blob(1);
    let larder = Larder::configured(&upstream, "", r#", "may_connect_to": ["127.0.0.0/8"]"#).await;
    assert_eq!(larder.blob("library/app", &held).await.status, 200);
    larder.settled().await;
    // A port that was free a moment ago: nobody answers there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    upstream.script(move |seen| {
        let to = format!("http://{gone}{}?signature=secret", seen.path);
        seen.path.contains("/blobs/").then(|| Fault::Answer(307, vec![("Location", to)], Vec::new()))
    });
    for tag in ["1", "2"] {
        assert_eq!(larder.manifest("library/app", tag).await.status, 200);
        assert_eq!(larder.blob("library/app", &held).await.status, 200);
        let answer = larder.blob("library/app", &image.blob(2).0).await;
        assert!(matches!(answer.status, 502..=504), "{}", answer.status);
        assert!(!answer.header("retry-after").is_empty());
    }
    let status = crate::support::client::ask(larder.admin, "GET", "/api/v1/status", &[], b"").await;
    let hub =
        status.json()["upstreams"].as_array().unwrap().iter().find(|u| u["host"] == "docker.io").cloned().unwrap();
    assert_eq!((hub["up"]["registry"].clone(), hub["up"]["cdn"].clone()), (true.into(), false.into()), "{hub}");
    assert!(hub["cause"].as_str().unwrap().contains("refused"), "{hub}");
    assert!(!String::from_utf8_lossy(&status.body).contains("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_in_descriptors_are_never_followed() {
    let trap = Upstream::start().await;
    let upstream = Upstream::start().await;
    let mut image = image(332, &[1000, 1000]);
    let mut document: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    for (at, layer) in document["layers"].as_array_mut().unwrap().iter_mut().enumerate() {
        layer["urls"] = serde_json::json!([format!("{}/layer", trap.url())]);
        if at == 1 {
            layer["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
        }
    }
    image.manifest = document.to_string().into_bytes();
    image.digest = Digest::of(&image.manifest);
    let (foreign, _) = image.blobs.pop().unwrap();
    upstream.add("library/app", "1", &image);
    let larder = Larder::before(&upstream).await;
    assert!(larder.manifest("library/app", "1").await.body[..] == image.manifest[..]);
    larder.settled().await;
    assert_eq!(larder.blob("library/app", &image.blob(1).0).await.status, 200);
    let answer = larder.blob("library/app", &foreign).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "BLOB_UNKNOWN"));
    assert_eq!(trap.asked_anything(), 0);
}

/// Docker Hub says of a repository that is gone what it says of one that is private.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_gone_as_docker_hub_says_it_is_denied_and_comes_back() {
    let upstream = Upstream::start().await;
    let first = image(333, &[100]);
    upstream.add("library/app", "1", &first);
    let larder = Larder::before(&upstream).await;
    larder.manifest("library/app", "1").await;
    larder.settled().await;
    larder.advance(std::time::Duration::from_secs(3600));
    let challenge = format!(
        r#"Bearer realm="{}/token",service="x",scope="repository:library/app:pull",error="insufficient_scope""#,
        upstream.url()
    );
    upstream.script(move |seen| {
        Some(match seen.path.as_str() {
            "/token" => {
                Fault::Answer(200, vec![("Content-Type", "application/json".into())], br#"{"token":"t"}"#.to_vec())
            }
            _ => Fault::Answer(401, vec![("WWW-Authenticate", challenge.clone())], Vec::new()),
        })
    });
    let answer = larder.manifest("library/app", "1").await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "DENIED"));
    assert_eq!(answer.header("www-authenticate"), "", "it is not the client's credential");
    assert_eq!(larder.manifest("library/app", &first.digest.to_string()).await.status, 200);
    upstream.unscript();
    let second = image(334, &[100]);
    upstream.add("library/app", "1", &second);
    assert!(larder.manifest("library/app", "1").await.body[..] == second.manifest[..]);
}
