//! What was stored and is no longer what it was: blobs, and the index.

use std::fs;
use std::path::Path;

use crate::support::Larder;
use crate::support::Upstream;
use crate::support::client;
use crate::support::images::Image;
use crate::support::images::image;
use crate::support::larder::eventually;
use crate::support::random::bytes;

fn flip(path: &Path, bit: usize) {
    let mut content = fs::read(path).unwrap();
    content[bit / 8] ^= 1 << (bit % 8);
    fs::write(path, content).unwrap();
}

fn cut(path: &Path, to: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(to).unwrap();
}

/// Asks for a scrub and reads it to its end: what it found damaged.
async fn scrub(larder: &Larder) -> Vec<String> {
    let answer = client::ask(larder.admin, "POST", "/api/v1/scrub", &[], b"").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"));
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["done"], true, "{text}");
    let mut failures: Vec<_> =
        last["failures"].as_array().unwrap().iter().map(|f| f.as_str().unwrap().to_owned()).collect();
    failures.sort();
    failures
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_finds_every_damage_and_what_is_damaged_is_fetched_again() {
    let upstream = Upstream::start().await;
    let whole = image(90, &[100_000, 100_000, 100_000, 100_000, 100_000]);
    upstream.add("library/app", "1", &whole);
    let larder = Larder::before(&upstream).await;
    larder.manifest("library/app", "1").await;
    larder.settled().await;
    for (digest, content) in &whole.blobs {
        assert!(larder.blob("library/app", digest).await.body[..] == content[..]);
    }
    assert!(scrub(&larder).await.is_empty());
    let layer = |n: usize| larder.file_of(&whole.blob(n).0);
    flip(&layer(1), 8 * 50_000 + 3);
    cut(&layer(2), 99_999);
    cut(&layer(3), 0);
    fs::write(layer(4), bytes(4711, 100_000)).unwrap();
    flip(&larder.file_of(&whole.digest), 77);
    let mut damaged: Vec<String> = (1..5).map(|n| whole.blob(n).0.to_string()).collect();
    damaged.push(whole.digest.to_string());
    damaged.sort();
    assert_eq!(scrub(&larder).await, damaged);
    upstream.forget();
    for (digest, content) in &whole.blobs {
        assert!(larder.blob("library/app", digest).await.body[..] == content[..]);
    }
    assert_eq!(upstream.asked(|s| s.method == "GET" && s.path.contains("/blobs/")).len(), 4);
    assert!(larder.manifest("library/app", &whole.digest.to_string()).await.body[..] == whole.manifest[..]);
    larder.settled().await;
    assert!(scrub(&larder).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_the_wrong_size_is_never_served_and_fetched_again_at_once() {
    let upstream = Upstream::start().await;
    let whole = image(91, &[100_000]);
    upstream.add("library/app", "1", &whole);
    let mut larder = Larder::before(&upstream).await;
    let (digest, content) = whole.blob(1);
    for round in 0..4 {
        larder.manifest("library/app", "1").await;
        assert!(larder.blob("library/app", &digest).await.body[..] == content[..], "round {round}");
        larder.settled().await;
        if round % 2 == 1 {
            // Not open any more.
            larder.stop().await;
        }
        cut(&larder.file_of(&digest), if round < 2 { 99_999 } else { 0 });
        if round % 2 == 1 {
            larder.start().await;
        }
    }
    assert!(larder.blob("library/app", &digest).await.body[..] == content[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_begins_by_itself() {
    let upstream = Upstream::start().await;
    let whole = image(92, &[100_000]);
    upstream.add("library/app", "1", &whole);
    let data = tempfile::tempdir().unwrap();
    let mut larder = Larder::configured_at(&upstream, data.path(), r#", "scrub": {"every": "1d"}"#).await;
    larder.manifest("library/app", "1").await;
    larder.settled().await;
    larder.stop().await;
    flip(&larder.file_of(&whole.blob(1).0), 9);
    larder.advance(std::time::Duration::from_hours(25));
    larder.start().await;
    eventually("the damage was found", async || {
        let metrics = client::ask(larder.admin, "GET", "/metrics", &[], b"").await;
        String::from_utf8_lossy(&metrics.body).contains("larder_scrub_failures_total 1")
    })
    .await;
    assert!(larder.blob("library/app", &whole.blob(1).0).await.body[..] == whole.blob(1).1[..]);
}

/// Does harm to the index's file.
type Harm = Box<dyn Fn(&Path)>;

/// Everything is served from here.
async fn is_whole(larder: &Larder, images: &[Image], what: &str) {
    for (n, image) in images.iter().enumerate() {
        let name = format!("library/app{n}");
        assert!(larder.manifest(&name, "1").await.body[..] == image.manifest[..], "{what}");
        for (digest, content) in &image.blobs {
            assert!(larder.blob(&name, digest).await.body[..] == content[..], "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_lost_or_damaged_or_not_ours_is_made_anew_while_pulls_are_served() {
    let upstream = Upstream::start().await;
    let images: Vec<Image> = (0..5).map(|n| image(100 + n, &[30_000, 2_000])).collect();
    for (n, image) in images.iter().enumerate() {
        upstream.add(&format!("library/app{n}"), "1", image);
    }
    let mut other = Larder::before(&upstream).await;
    other.manifest("library/app0", "1").await;
    other.settled().await;
    other.stop().await;
    let theirs = fs::read(other.data().join("index.redb")).unwrap();
    let mut larder = Larder::before(&upstream).await;
    larder.manifest("library/app0", "1").await;
    larder.settled().await;
    larder.stop().await;
    let file = larder.data().join("index.redb");
    let older = fs::read(&file).unwrap();
    larder.start().await;
    for n in 0..images.len() {
        larder.manifest(&format!("library/app{n}"), "1").await;
    }
    larder.settled().await;
    upstream.script(|_| Some(crate::support::Fault::Answer(503, Vec::new(), Vec::new())));
    let size = fs::metadata(&file).unwrap().len();
    let flips = |rounds: usize| {
        move |file: &Path| {
            let length = fs::read(file).unwrap().len();
            let drawn = bytes(rounds as u64, 8 * rounds);
            for bit in drawn.chunks(8) {
                let bit = u64::from_le_bytes(bit.try_into().unwrap());
                flip(file, usize::try_from(bit % (8 * length as u64)).unwrap());
            }
        }
    };
    let mut harms: Vec<(&str, Harm)> = vec![
        ("missing", Box::new(|file: &Path| fs::remove_file(file).unwrap())),
        ("cut", Box::new(move |file: &Path| cut(file, size / 3))),
        ("empty", Box::new(|file: &Path| cut(file, 0))),
        ("no index", Box::new(|file: &Path| fs::write(file, "no index at all").unwrap())),
        ("older", Box::new(move |file: &Path| fs::write(file, &older).unwrap())),
        ("another folder's", Box::new(move |file: &Path| fs::write(file, &theirs).unwrap())),
    ];
    for rounds in [1, 2, 5, 20, 100, 1000] {
        harms.push(("flipped", Box::new(flips(rounds))));
    }
    for (what, harm) in harms {
        larder.stop().await;
        harm(&file);
        larder.start().await;
        is_whole(&larder, &images, what).await;
        larder.says("\"index\":\"complete\"").await;
        is_whole(&larder, &images, what).await;
        eventually(what, async || {
            let listed = client::ask(larder.admin, "GET", "/api/v1/repositories", &[], b"").await;
            listed.status == 200 && listed.json()["repositories"].as_array().unwrap().len() == images.len()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_never_makes_a_complete_blob_and_is_fetched_again() {
    let upstream = Upstream::start().await;
    let whole = image(94, &[500_000, 1_000]);
    upstream.add("library/app", "1", &whole);
    let mut larder = Larder::before(&upstream).await;
    larder.manifest("library/app", "1").await;
    larder.settled().await;
    for (round, restarted) in [("while it is open", false), ("while larder was away", true)] {
        for n in [1, 2] {
            let (digest, content) = whole.blob(n);
            assert!(larder.blob("library/app", &digest).await.body[..] == content[..], "{round} {n}");
            larder.settled().await;
            if restarted {
                larder.stop().await;
            }
            flip(&larder.file_of(&digest), 8 * (content.len() / 2) + 1);
            if restarted {
                larder.start().await;
            }
            let answer = larder.blob("library/app", &digest).await;
            assert!(!answer.complete || answer.body[..] == content[..], "{round} {n}: a wrong blob came to its end");
            // What is small is looked at before a byte goes out: its client gets the right one at once.
            assert!(n == 1 || answer.complete, "{round}");
            let again = larder.blob("library/app", &digest).await;
            assert!(again.complete && again.body[..] == content[..], "{round} {n}: {}", again.status);
            let tail = larder.ranged("library/app", &digest, "bytes=-10").await;
            assert!(tail.body[..] == content[content.len() - 10..], "{round} {n}");
        }
    }
}
