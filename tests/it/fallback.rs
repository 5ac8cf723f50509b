//! Build caches of other branches, where a tag is missing: what docs/how-to/build-cache.md says.

use crate::support::Answer;
use crate::support::Larder;
use crate::support::Upstream;
use crate::support::client;
use crate::support::hosted;
use crate::support::images::Image;
use crate::support::images::build_cache;
use crate::support::images::build_cache_index;
use crate::support::images::image;
use crate::support::images::image_with_cache;
use crate::support::images::index;
use crate::support::users;

const FALLBACK: &str = r#", "build_caches": [{"match": "cache/**", "fallback": ["{base|slug}", "main"]}]"#;

/// As containerd and BuildKit send it before a push.
const PUSHER: &str = "application/vnd.oci.image.manifest.v1+json, */*";

struct Caches {
    larder: Larder,
    _upstream: Upstream,
    _folder: tempfile::TempDir,
}

async fn caches(images: &[(&str, &str, &Image)], more: &str) -> Caches {
    let folder = tempfile::tempdir().unwrap();
    hosted::put(folder.path(), images).await;
    let upstream = Upstream::start().await;
    let larder = Larder::configured_at(&upstream, folder.path(), more).await;
    Caches { larder, _upstream: upstream, _folder: folder }
}

fn served(answer: &Answer) -> (u16, &str, &str) {
    (answer.status, answer.header("larder-served-tag"), answer.header("docker-content-digest"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_tag_is_answered_with_the_cache_of_main_and_says_so() {
    let main = build_cache(1);
    let it = caches(&[("cache/app", "main", &main)], FALLBACK).await;
    let digest = main.digest.to_string();
    let resolved = it.larder.head("/v2/cache/app/manifests/feature-x").await;
    assert_eq!(served(&resolved), (200, "main", &*digest));
    assert_eq!(resolved.header("content-length"), main.manifest.len().to_string());
    let pulled = it.larder.manifest("cache/app", "feature-x").await;
    assert_eq!(served(&pulled), (200, "main", &*digest));
    assert_eq!(pulled.header("cache-status"), "larder; hit; detail=fallback");
    assert!(pulled.body[..] == main.manifest[..]);
    // What it names is there by its digest, in the same repository.
    assert_eq!(it.larder.manifest("cache/app", &digest).await.status, 200);
    let own = it.larder.manifest("cache/app", "main").await;
    assert_eq!(served(&own), (200, "", &*digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushers_look_sees_no_fallback() {
    let it = caches(&[("cache/app", "main", &build_cache(2))], FALLBACK).await;
    for accept in [PUSHER, "*/*"] {
        let looked = it.larder.ask("HEAD", "/v2/cache/app/manifests/feature-x", &[("Accept", accept)]).await;
        assert_eq!(served(&looked), (404, "", ""), "{accept}");
    }
    let looked = it.larder.ask("HEAD", "/v2/cache/app/manifests/feature-x", &[]).await;
    assert_eq!(looked.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_a_build_cache_stands_in() {
    let (old_form, inline) = (build_cache_index(10), image_with_cache(11));
    let (plain, platforms) = (image(12, &[100]), index(&[image(13, &[100]), image(14, &[100])]));
    let mixed = index(&[image(15, &[100]), image_with_cache(16)]);
    let mut large = image_with_cache(17);
    large.blobs[0].1.splice(0..1, [b"{\"x\":\"".to_vec(), vec![b'x'; 5 << 20], b"\",".to_vec()].concat());
    let large = of_config(&large.blobs[0].1.clone());
    let it = caches(
        &[
            ("cache/index", "main", &old_form),
            ("cache/inline", "main", &inline),
            ("cache/plain", "main", &plain),
            ("cache/platforms", "main", &platforms),
            ("cache/mixed", "main", &mixed),
            ("cache/large", "main", &large),
        ],
        FALLBACK,
    )
    .await;
    for (repository, stands_in) in [
        ("cache/index", true),
        ("cache/inline", true),
        ("cache/plain", false),
        ("cache/platforms", false),
        ("cache/mixed", true),
        ("cache/large", false),
        ("cache/none", false),
    ] {
        // Twice: what was found out is remembered.
        for _ in 0..2 {
            let answer = it.larder.manifest(repository, "feature-x").await;
            let want = if stands_in { (200, "main") } else { (404, "") };
            assert_eq!((answer.status, answer.header("larder-served-tag")), want, "{repository}");
        }
    }
}

/// An image whose configuration is this.
fn of_config(config: &[u8]) -> Image {
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[]}}"#,
        larder::oci::Digest::of(config),
        config.len()
    );
    Image {
        digest: larder::oci::Digest::of(manifest.as_bytes()),
        manifest: manifest.into_bytes(),
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        blobs: vec![(larder::oci::Digest::of(config), config.to_vec())],
        children: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_template_that_is_there_decides() {
    let (main, of_branch, plain) = (build_cache(20), build_cache(21), image(22, &[100]));
    let more = r#", "build_caches": [{"match": "cache/**", "tag": "{branch|slug}-{sha:7}", "fallback": ["{base}", "{branch|slug}", "main"]}]"#;
    let it =
        caches(&[("cache/app", "main", &main), ("cache/app", "x", &of_branch), ("cache/app", "y", &plain)], more).await;
    for (asked, want) in [
        ("x-0123456", (200, "x")),
        ("z-0123456", (200, "main")),
        // It is there and is no cache: nothing further is looked for.
        ("y-0123456", (404, "")),
        // Not of the form.
        ("other", (404, "")),
    ] {
        let answer = it.larder.manifest("cache/app", asked).await;
        assert_eq!((answer.status, answer.header("larder-served-tag")), want, "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_entry_a_missing_tag_is_missing() {
    let main = build_cache(30);
    let it = caches(&[("cache/app", "main", &main), ("cache/other", "main", &main)], "").await;
    assert_eq!(it.larder.manifest("cache/app", "feature-x").await.status, 404);
    let more = r#", "build_caches": [{"match": "cache/app", "fallback": ["main"]}]"#;
    let it = caches(&[("cache/app", "main", &main), ("cache/other", "main", &main)], more).await;
    assert_eq!(it.larder.manifest("cache/app", "feature-x").await.status, 200);
    assert_eq!(it.larder.manifest("cache/other", "feature-x").await.status, 404);
    // What refers to a digest is asked for by a tag too, and nothing else may answer it.
    assert_eq!(it.larder.manifest("cache/app", &format!("sha256-{}", "0".repeat(64))).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tag_that_stands_in_must_be_the_callers_to_pull() {
    let (_users, file) = users::file(&["alice", "bob"]);
    let access = serde_json::json!({
        "htpasswd": file,
        "rules": [
            {"who": "alice", "may": ["pull"], "repositories": ["cache/**"]},
            {"who": "bob", "may": ["pull"], "repositories": ["cache/**"], "tags": ["feature-*", "develop"]},
        ],
    });
    let more =
        format!(r#", "access": {access}, "build_caches": [{{"match": "cache/**", "fallback": ["main", "develop"]}}]"#);
    let (main, develop) = (build_cache(40), build_cache(41));
    let it = caches(
        &[("cache/app", "main", &main), ("cache/app", "develop", &develop), ("cache/two", "main", &main)],
        &more,
    )
    .await;
    for (user, repository, want) in [
        ("alice", "cache/app", (200, "main")),
        ("bob", "cache/app", (200, "develop")),
        ("bob", "cache/two", (404, "")),
        ("", "cache/app", (401, "")),
    ] {
        let basic = users::known(user);
        let mut headers = vec![("Accept", client::ACCEPT)];
        if !user.is_empty() {
            headers.push(("Authorization", &basic));
        }
        let answer = it.larder.ask("GET", &format!("/v2/{repository}/manifests/feature-x"), &headers).await;
        assert_eq!((answer.status, answer.header("larder-served-tag")), want, "{user} {repository}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_is_a_pull_or_what_resolves_a_tag_and_no_pushers_look() {
    let main = build_cache(50);
    let it = caches(&[("cache/app", "main", &main)], FALLBACK).await;
    let used = async || {
        let listed = client::ask(it.larder.admin, "GET", "/api/v1/tags?repository=cache/app", &[], b"").await;
        let tag = listed.json()["tags"][0].clone();
        assert_eq!((tag["tag"].as_str(), tag["class"].as_str()), (Some("main"), Some("buildcache")), "{tag}");
        tag["used_at"].as_str().map(str::to_owned)
    };
    assert_eq!(it.larder.ask("HEAD", "/v2/cache/app/manifests/main", &[("Accept", PUSHER)]).await.status, 200);
    assert_eq!(used().await, None);
    assert_eq!(it.larder.head("/v2/cache/app/manifests/main").await.status, 200);
    let first = used().await;
    assert!(first.is_some());
    it.larder.advance(std::time::Duration::from_secs(60));
    // The cache that stands in was used, under its own tag.
    assert_eq!(it.larder.manifest("cache/app", "feature-x").await.status, 200);
    assert!(used().await > first);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_what_a_manifest_is() {
    let it = caches(
        &[
            ("cache/app", "main", &build_cache_index(60)),
            ("cache/app", "image", &image(61, &[10])),
            ("cache/app", "index", &index(&[image(62, &[10])])),
        ],
        "",
    )
    .await;
    for (tag, class) in [("main", "buildcache"), ("image", "image"), ("index", "index")] {
        let path = format!("/api/v1/explain?ref=cache/app:{tag}");
        let explained = client::ask(it.larder.admin, "GET", &path, &[], b"").await.json();
        assert_eq!(explained["class"], class, "{explained}");
    }
}
