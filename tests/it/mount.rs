//! What need not be pushed: mounts, and HEADs before a push.

use larder::oci::Digest;

use crate::support::Larder;
use crate::support::Upstream;
use crate::support::images::image;
use crate::support::push;
use crate::support::random::bytes;
use crate::support::users;

fn mount(repository: &str, digest: &Digest, from: &str) -> String {
    let from = if from.is_empty() { String::new() } else { format!("&from={from}") };
    format!("/v2/{repository}/blobs/uploads/?mount={digest}{from}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_mounted_from_where_it_is_and_pushed_otherwise() {
    let upstream = Upstream::start().await;
    let image = image(400, &[70_000]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::before(&upstream).await;
    let (layer, content) = image.blob(1);
    assert_eq!(larder.blob("library/app", &layer).await.status, 200);
    larder.settled().await;
    let pushed = push::push(&larder, "cache/a", &bytes(401, 1_000)).await;
    for (n, (digest, from)) in [
        (&pushed, "cache/a"),
        (&pushed, "cache%2Fa"),
        (&pushed, ""),
        (&layer, "library/app"),
        (&layer, "docker.io/library/app"),
        (&layer, "app"),
        (&layer, ""),
    ]
    .into_iter()
    .enumerate()
    {
        let repository = format!("cache/to{n}");
        let answer = larder.ask("POST", &mount(&repository, digest, from), &[]).await;
        let location = format!("/v2/{repository}/blobs/{digest}");
        assert_eq!((answer.status, answer.header("location")), (201, location.as_str()), "{from}");
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        assert_eq!(larder.get(&location).await.status, 200);
    }
    assert!(larder.blob("cache/to3", &layer).await.body == content);
    for (digest, from) in [
        (&pushed, "cache/nothing"),
        (&pushed, "library/app"),
        (&pushed, "unknown.example.com/app"),
        (&pushed, "../a"),
        (&Digest::of(b"nowhere"), "cache/a"),
        (&Digest::of(b"nowhere"), ""),
    ] {
        let answer = larder.ask("POST", &mount("cache/other", digest, from), &[]).await;
        assert_eq!(answer.status, 202, "{from}");
        assert_eq!(push::range(&larder, answer.header("location")).await, "0-0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pusher_would_have_to_push_is_told_by_head_and_public_layers_are_not() {
    let upstream = Upstream::start().await;
    let image = image(402, &[70_000]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::before(&upstream).await;
    let (layer, content) = image.blob(1);
    let path = format!("/v2/cache/app/blobs/{layer}");
    assert_eq!(larder.head(&path).await.status, 404);
    assert_eq!(larder.blob("library/app", &layer).await.status, 200);
    larder.settled().await;
    assert_eq!(larder.get(&path).await.status, 404, "a GET links nothing");
    let head = larder.head(&path).await;
    assert_eq!((head.status, head.header("content-length")), (200, "70000"));
    assert!(larder.get(&path).await.body == content);
    // Damage is for the push to repair.
    std::fs::File::options().write(true).open(larder.file_of(&layer)).unwrap().set_len(1).unwrap();
    assert_eq!(larder.get(&path).await.status, 500);
    assert_eq!(larder.head(&path).await.status, 404);
    push::push(&larder, "cache/app", &content).await;
    assert_eq!(larder.head(&path).await.status, 200);
    assert!(larder.get(&path).await.body == content);
}

/// Presence is no permission: bob may push to his own and pull nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_linked_from_where_the_caller_may_not_pull() {
    let upstream = Upstream::start().await;
    let image = image(403, &[70_000]);
    upstream.add("library/app", "1", &image);
    let (_users, file) = users::file(&["alice", "bob"]);
    let access = serde_json::json!({
        "htpasswd": file,
        "rules": [
            {"who": "alice", "may": ["pull", "push"], "repositories": ["**"]},
            {"who": "bob", "may": ["pull", "push"], "repositories": ["cache/bob"]},
        ],
    });
    let larder = Larder::configured(&upstream, &format!(r#", "access": {access}"#), "").await;
    let (alice, bob) = (users::known("alice"), users::known("bob"));
    let (layer, _) = image.blob(1);
    let as_alice = [("Authorization", alice.as_str())];
    assert_eq!(larder.ask("GET", &format!("/v2/library/app/blobs/{layer}"), &as_alice).await.status, 200);
    larder.settled().await;
    let secret = bytes(404, 1_000);
    let secret_digest = Digest::of(&secret);
    let at_once = push::with_digest("/v2/cache/alice/blobs/uploads/", &secret_digest);
    assert_eq!(push::send(&larder, "POST", &at_once, &as_alice, &secret).await.status, 201);
    let as_bob = [("Authorization", bob.as_str())];
    for (digest, from) in [
        (&secret_digest, "cache/alice"),
        (&secret_digest, ""),
        (&layer, "library/app"),
        (&layer, "docker.io/library/app"),
        (&layer, ""),
    ] {
        assert_eq!(larder.ask("POST", &mount("cache/bob", digest, from), &as_bob).await.status, 202, "{from}");
        let path = format!("/v2/cache/bob/blobs/{digest}");
        assert_eq!(larder.ask("HEAD", &path, &as_bob).await.status, 404, "{from}");
        assert_eq!(larder.ask("GET", &path, &as_bob).await.status, 404, "{from}");
    }
    assert_eq!(larder.ask("POST", &mount("cache/to", &layer, ""), &as_alice).await.status, 201);
}
