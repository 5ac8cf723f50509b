//! What nothing names any more is collected while larder serves, and nothing else is.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use larder::oci::Digest;
use tokio::time::Instant;

use crate::support::Larder;
use crate::support::client;
use crate::support::images::Image;
use crate::support::images::image;
use crate::support::images::index;
use crate::support::images::referrer;
use crate::support::larder::eventually;
use crate::support::larder::files;
use crate::support::push;
use crate::support::random::bytes;

const APP: &str = "cache/app";

/// The last line of a collection.
async fn collect(larder: &Larder) -> serde_json::Value {
    let answer = larder.ask_admin("POST", "/api/v1/gc").await;
    assert_eq!(answer.status, 200);
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(last["done"] == true && last["failed"].is_null(), "{last}");
    last
}

async fn delete(larder: &Larder, reference: &str) {
    let answer = larder.ask("DELETE", &format!("/v2/{APP}/manifests/{reference}"), &[]).await;
    assert_eq!(answer.status, 202);
}

/// The blobs in the folder.
fn stored(larder: &Larder) -> BTreeSet<String> {
    let name = |path: std::path::PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files(&larder.data().join("blobs")).into_iter().map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tag_takes_everything_along_that_only_it_kept() {
    let larder = Larder::with(r#"{"gc": {"lease": "0s", "every": "0s"}}"#).await;
    let (one, two) = (image(900, &[1000, 2000]), image(901, &[3000]));
    let all = index(&[one.clone(), two.clone()]);
    assert_eq!(push::image(&larder, APP, "all", &all).await.status, 201);
    assert_eq!(push::manifest(&larder, APP, "two", &two).await.status, 201);
    let signature = referrer(902, &all, "application/vnd.example.signature");
    assert_eq!(push::image(&larder, APP, &signature.digest.to_string(), &signature).await.status, 201);
    collect(&larder).await;
    assert_eq!(larder.manifest(APP, &signature.digest.to_string()).await.status, 200);
    delete(&larder, "all").await;
    let kept: BTreeSet<String> =
        two.blobs.iter().map(|(digest, _)| *digest).chain([two.digest]).map(|digest| digest.hex()).collect();
    // By itself, as nobody asked for it.
    eventually("only the tagged image is left", async || stored(&larder) == kept).await;
    assert_eq!(larder.manifest(APP, &one.digest.to_string()).await.status, 404);
    let pulled = larder.manifest(APP, "two").await;
    assert_eq!(pulled.body[..], two.manifest[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_tells_what_it_freed_and_counts_it() {
    let larder = Larder::with(
        r#"{"gc": {"lease": "0s", "every": "0s"}, "hosted": [{"match": "cache/**", "untagged_keep": "1h"}]}"#,
    )
    .await;
    let (old, new) = (image(920, &[50_000]), image(921, &[1000]));
    assert_eq!(push::image(&larder, APP, "main", &old).await.status, 201);
    assert_eq!(push::image(&larder, APP, "main", &new).await.status, 201);
    assert_eq!(collect(&larder).await["waiting"], 1);
    larder.advance(Duration::from_hours(1));
    let last = collect(&larder).await;
    let freed = old.manifest.len() + old.blobs.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    assert_eq!((&last["manifests"], &last["blobs"], &last["freed"]), (&1.into(), &2.into(), &freed.into()));
    let metrics = String::from_utf8(larder.ask_admin("GET", "/metrics").await.body.to_vec()).unwrap();
    assert!(metrics.contains(&format!("larder_gc_freed_bytes_total {freed}\n")), "{metrics}");
    // A page in a browser may not ask for it.
    let asked = client::ask(larder.admin, "POST", "/api/v1/gc", &[("Origin", "http://evil.example")], b"").await;
    assert_eq!(asked.status, 403);
}

const REPOSITORIES: usize = 3;
const TAGS: u64 = 6;
const LAYERS: u64 = 24;

/// One of the clients of the soak, and what its tags mean.
struct Worker {
    number: u64,
    random: Random,
    tags: BTreeMap<(usize, u64), Image>,
    pushed: u64,
}

/// Numbers that look random, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn repository(at: usize) -> String {
    format!("cache/soak-{at}")
}

impl Worker {
    /// An image of layers that everybody shares, with a configuration of its own.
    fn image(&mut self) -> Image {
        self.pushed += 1;
        let own = image(1_000_000 + self.number * 100_000 + self.pushed, &[]);
        let layers = (0..=self.random.below(3)).map(|_| self.random.below(LAYERS)).collect::<BTreeSet<u64>>();
        own.with_layers(layers.into_iter().map(|layer| bytes(7_000 + layer, 2000)).collect())
    }

    async fn work(&mut self, larder: &Larder) {
        let at = usize::try_from(self.random.below(REPOSITORIES as u64)).unwrap();
        let tag = self.random.below(TAGS);
        match self.random.below(10) {
            0..4 => {
                let image = self.image();
                push_as_clients_do(larder, at, &self.named(tag), &image).await;
                self.tags.insert((at, tag), image);
            }
            4 => {
                let all = index(&[self.image(), self.image()]);
                push_as_clients_do(larder, at, &self.named(tag), &all).await;
                self.tags.insert((at, tag), all);
            }
            5 => {
                let Some(image) = self.tags.get(&(at, tag)).cloned() else { return };
                let other = self.random.below(TAGS);
                let pushed = push::manifest(larder, &repository(at), &self.named(other), &image).await;
                assert_eq!(pushed.status, 201, "{pushed:?}");
                self.tags.insert((at, other), image);
            }
            6 | 7 => {
                let answer = larder.ask("DELETE", &Self::path(at, &self.named(tag)), &[]).await;
                assert_eq!(answer.status, if self.tags.remove(&(at, tag)).is_some() { 202 } else { 404 });
            }
            8 => {
                let Some(image) = self.tags.get(&(at, tag)).cloned() else { return };
                let answer = larder.ask("DELETE", &Self::path(at, &image.digest.to_string()), &[]).await;
                assert_eq!(answer.status, 202, "{answer:?}");
                self.tags.retain(|(of, _), means| *of != at || means.digest != image.digest);
            }
            _ => {
                let Some(image) = self.tags.get(&(at, tag)).cloned() else { return };
                let pulled = larder.get(&Self::path(at, &self.named(tag))).await;
                assert!(pulled.status == 200 && pulled.body[..] == image.manifest[..], "{pulled:?}");
                pull_all(larder, at, &image).await;
            }
        }
    }

    fn named(&self, tag: u64) -> String {
        format!("c{}-{tag}", self.number)
    }

    fn path(at: usize, reference: &str) -> String {
        format!("/v2/{}/manifests/{reference}", repository(at))
    }
}

async fn pull_all(larder: &Larder, at: usize, image: &Image) {
    for (digest, bytes) in &image.blobs {
        let pulled = larder.blob(&repository(at), digest).await;
        assert!(pulled.status == 200 && pulled.body[..] == bytes[..], "{digest}: {}", pulled.status);
    }
    for child in &image.children {
        let pulled = larder.manifest(&repository(at), &child.digest.to_string()).await;
        assert!(pulled.status == 200 && pulled.body[..] == child.manifest[..], "{pulled:?}");
        Box::pin(pull_all(larder, at, child)).await;
    }
}

/// Asks by HEAD first and pushes what is not there: what was said to be here must be here when the manifest comes.
async fn push_as_clients_do(larder: &Larder, at: usize, reference: &str, image: &Image) {
    let of = repository(at);
    for (digest, bytes) in &image.blobs {
        if larder.head(&format!("/v2/{of}/blobs/{digest}")).await.status != 200 {
            push::push(larder, &of, bytes).await;
        }
    }
    for child in &image.children {
        let digest = child.digest.to_string();
        if larder.head(&format!("/v2/{of}/manifests/{digest}")).await.status != 200 {
            Box::pin(push_as_clients_do(larder, at, &digest, child)).await;
        }
    }
    let pushed = push::manifest(larder, &of, reference, image).await;
    assert_eq!(pushed.status, 201, "{pushed:?}");
}

fn digests(image: &Image, into: &mut BTreeSet<String>) {
    into.insert(image.digest.hex());
    into.extend(image.blobs.iter().map(|(digest, _): &(Digest, _)| digest.hex()));
    for child in &image.children {
        digests(child, into);
    }
}

/// `SOAK_SECONDS` makes it longer; `make soak` takes ten minutes.
#[tokio::test(flavor = "multi_thread")]
async fn clients_push_pull_and_remove_while_everything_is_collected_all_the_time() {
    let seconds: u64 = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let config = r#"{"gc": {"lease": "5s", "every": "1s"}, "hosted": [{"match": "cache/**", "untagged_keep": "0s"}]}"#;
    let larder = Arc::new(Larder::with(config).await);
    let began = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..6 {
        let larder = Arc::clone(&larder);
        workers.spawn(async move {
            let random = Random(number * 7919 + 1);
            let mut worker = Worker { number, random, tags: BTreeMap::new(), pushed: 0 };
            let mut rounds = 0_u64;
            while rounds < 60 || began.elapsed() < Duration::from_secs(seconds) {
                worker.work(&larder).await;
                rounds += 1;
            }
            (worker, rounds)
        });
    }
    let collecting = {
        let (larder, over) = (Arc::clone(&larder), Arc::clone(&over));
        let mut collecting = tokio::task::JoinSet::new();
        collecting.spawn(async move {
            let (mut cycles, mut freed) = (0_u64, 0);
            while !over.load(Ordering::Relaxed) {
                freed += collect(&larder).await["freed"].as_u64().unwrap();
                cycles += 1;
            }
            (cycles, freed)
        });
        collecting
    };
    let done = workers.join_all().await;
    let worked = began.elapsed();
    over.store(true, Ordering::Relaxed);
    let (cycles, freed) = collecting.join_all().await.remove(0);
    let (mut live, mut rounds, mut pushed) = (BTreeSet::new(), 0, 0);
    for (worker, taken) in done {
        rounds += taken;
        pushed += worker.pushed;
        for ((at, _), image) in &worker.tags {
            digests(image, &mut live);
            pull_all(&larder, *at, image).await;
        }
    }
    eventually("exactly what is kept is there", async || {
        collect(&larder).await;
        stored(&larder) == live
    })
    .await;
    println!(
        "{rounds} operations in {:?}, {pushed} images pushed, {cycles} collections, {freed} bytes freed meanwhile; all in {:?}",
        worked,
        began.elapsed()
    );
}
