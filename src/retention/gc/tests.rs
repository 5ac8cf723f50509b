//! What is collected, when, and what is not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::config::Hosted;
use crate::config::Limits;
use crate::oci::Digest;
use crate::oci::Manifest;
use crate::oci::MediaType;
use crate::oci::Tag;
use crate::store::Put;
use crate::store::Removal;
use crate::store::StoreOptions;
use crate::views::Fallbacks;
use crate::views::Runs;

const KEEP: Duration = Duration::from_hours(48);

struct Bench {
    _folder: tempfile::TempDir,
    store: Store,
    gc: Gc,
    runs: Runs,
    clock: Clock,
    of: RepositoryKey,
}

impl Bench {
    async fn new(lease: Duration) -> Self {
        Self::with(lease, Vec::new()).await
    }

    async fn with(lease: Duration, caches: Vec<config::BuildCache>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (clock, tasks, metrics) = (Clock::manual(Timestamp(1_000_000)), Tasks::new(), Arc::new(Metrics::new()));
        let mut config = Config::default();
        config.store.path = folder.path().to_owned();
        config.store.reserve_free = 0;
        let options = StoreOptions { store: config.store.clone(), lease };
        let store = Store::open(options, clock.clone(), tasks.clone(), Arc::clone(&metrics)).await.unwrap();
        let runs = Runs::new(
            store.clone(),
            clock.clone(),
            tasks.clone(),
            Arc::clone(&metrics),
            config.runs.clone(),
            &Limits::default(),
        );
        runs.list().await.unwrap();
        let views = Views { fallbacks: Fallbacks::new(store.clone(), Vec::new()), runs: runs.clone() };
        let hosted = Hosted { untagged_keep: KEEP, ..Hosted::named("cache/**".parse().unwrap()) };
        let settings = Settings { every: Duration::ZERO, hosted: vec![hosted], caches };
        let gc = Gc::new(store.clone(), views, clock.clone(), tasks, metrics, settings);
        let of = RepositoryKey::from_path("_hosted/cache/app").unwrap();
        Self { _folder: folder, store, gc, runs, clock, of }
    }

    async fn collect(&self) -> Progress {
        let mut cycle = self.gc.cycle(None);
        while cycle.step().await.unwrap() {}
        cycle.progress().clone()
    }

    async fn put(&self, manifest: &Manifest, blobs: &[&str], tags: &[&str]) -> Digest {
        let digest = manifest.digest();
        let mut puts = vec![Put::Manifest { manifest: manifest.clone(), digest }];
        for text in blobs {
            let bytes = Bytes::copy_from_slice(text.as_bytes());
            puts.push(Put::Blob(self.store.spool().stage(bytes, Digest::of(text.as_bytes())).await.unwrap()));
        }
        let (media_type, size) = (manifest.media_type.clone(), manifest.size());
        puts.extend(tags.iter().map(|tag| Put::Tag {
            tag: tag.parse().unwrap(),
            digest,
            media_type: media_type.clone(),
            size,
            pusher: None,
        }));
        self.store.commit_if(&self.of, puts, Vec::new()).await.unwrap();
        digest
    }

    async fn image(&self, text: &str, tags: &[&str]) -> Digest {
        self.put(&image(&[text], None), &[text], tags).await
    }

    async fn untag(&self, tag: &str) {
        self.remove(Removal::Tag(tag.parse().unwrap())).await;
    }

    async fn remove(&self, removal: Removal) {
        assert!(self.store.remove(&self.of, removal, Arc::new(|_| false)).await.unwrap());
    }

    async fn has(&self, digest: &Digest) -> bool {
        self.store.held(&self.of, digest).await.unwrap().is_some()
    }
}

fn described(digest: &Digest, size: usize, media_type: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
}

fn image(layers: &[&str], subject: Option<&Digest>) -> Manifest {
    let layers: Vec<String> =
        layers.iter().map(|text| described(&Digest::of(text.as_bytes()), text.len(), "application/x")).collect();
    let subject = subject.map(|of| format!(r#""subject":{},"#, described(of, 1, MediaType::OCI_MANIFEST)));
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}",{}"layers":[{}]}}"#,
        MediaType::OCI_MANIFEST,
        subject.unwrap_or_default(),
        layers.join(",")
    );
    Manifest::parse(text.into(), MediaType::OCI_MANIFEST).unwrap()
}

fn index(children: &[Digest]) -> Manifest {
    let children: Vec<String> = children.iter().map(|child| described(child, 1, MediaType::OCI_MANIFEST)).collect();
    let text =
        format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#, MediaType::OCI_INDEX, children.join(","));
    Manifest::parse(text.into(), MediaType::OCI_INDEX).unwrap()
}

#[tokio::test]
async fn what_lost_its_last_tag_by_a_delete_goes_with_its_blobs_and_what_is_shared_stays() {
    let bench = Bench::new(Duration::ZERO).await;
    let gone = bench.put(&image(&["own", "shared"], None), &["own", "shared"], &["a", "b"]).await;
    let kept = bench.put(&image(&["shared", "other"], None), &["other"], &["c"]).await;
    bench.untag("a").await;
    assert_eq!(bench.collect().await.manifests, 0, "another tag means it");
    bench.untag("b").await;
    let progress = bench.collect().await;
    assert_eq!((progress.manifests, progress.blobs, progress.waiting), (1, 1, 0));
    assert!(!bench.has(&gone).await && !bench.has(&Digest::of(b"own")).await);
    assert!(bench.has(&kept).await && bench.has(&Digest::of(b"shared")).await);
    assert_eq!(bench.store.present(&Digest::of(b"own")).await.unwrap(), None, "the bytes are gone");
    assert_eq!(progress.freed, 3 + image(&["own", "shared"], None).size());
}

#[tokio::test]
async fn what_was_replaced_goes_after_its_time_and_what_never_had_a_tag_stays() {
    let bench = Bench::new(Duration::ZERO).await;
    let old = bench.image("old", &["main"]).await;
    let untagged = bench.image("untagged", &[]).await;
    bench.image("new", &["main"]).await;
    assert_eq!(bench.collect().await.waiting, 1);
    let second = Duration::from_secs(1);
    bench.clock.advance(KEEP.checked_sub(second).unwrap());
    assert_eq!(bench.collect().await.manifests, 0);
    assert!(bench.has(&old).await);
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.collect().await.manifests, 1);
    assert!(!bench.has(&old).await && bench.has(&untagged).await);
}

#[tokio::test]
async fn a_tag_that_comes_back_keeps_what_was_replaced() {
    let bench = Bench::new(Duration::ZERO).await;
    let old = bench.image("old", &["main"]).await;
    bench.image("new", &["main"]).await;
    bench.collect().await;
    bench.image("old", &["main"]).await;
    bench.clock.advance(KEEP);
    let progress = bench.collect().await;
    assert!(bench.has(&old).await);
    assert_eq!((progress.manifests, progress.waiting), (0, 1), "the time of the other one begins now");
}

#[tokio::test]
async fn an_index_keeps_what_it_names_and_takes_it_along_unless_a_tag_keeps_it() {
    let bench = Bench::new(Duration::ZERO).await;
    let (one, two) = (bench.image("one", &[]).await, bench.image("two", &["two"]).await);
    let inner = bench.put(&index(&[one]), &[], &[]).await;
    let outer = bench.put(&index(&[inner, two]), &[], &["all"]).await;
    bench.collect().await;
    assert!(bench.has(&one).await && bench.has(&inner).await);
    bench.untag("all").await;
    let progress = bench.collect().await;
    assert_eq!(progress.manifests, 3);
    assert!(bench.has(&two).await && bench.has(&Digest::of(b"two")).await);
    for gone in [outer, inner, one, Digest::of(b"one")] {
        assert!(!bench.has(&gone).await);
    }
}

#[tokio::test]
async fn a_subject_keeps_its_referrers_and_takes_them_along() {
    let bench = Bench::new(Duration::ZERO).await;
    let subject = bench.image("app", &["v1"]).await;
    let signature = bench.put(&image(&["signature"], Some(&subject)), &["signature"], &[]).await;
    let of_signature = bench.put(&image(&["countersigned"], Some(&signature)), &["countersigned"], &[]).await;
    bench.collect().await;
    assert!(bench.has(&signature).await && bench.has(&of_signature).await);
    bench.remove(Removal::Manifest(subject)).await;
    assert_eq!(bench.collect().await.manifests, 2);
    for gone in [signature, of_signature, Digest::of(b"countersigned")] {
        assert!(!bench.has(&gone).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_protects_what_nothing_names_yet() {
    let bench = Bench::new(Duration::from_hours(1)).await;
    tokio::time::advance(Duration::from_hours(2)).await;
    let subject = image(&["later"], None).digest();
    let early = bench.put(&image(&["early"], Some(&subject)), &["early"], &[]).await;
    let bytes = Bytes::from_static(b"upload");
    let blob = Put::Blob(bench.store.spool().stage(bytes, Digest::of(b"upload")).await.unwrap());
    bench.store.commit_if(&bench.of, vec![blob], Vec::new()).await.unwrap();
    bench.collect().await;
    assert!(bench.has(&early).await && bench.has(&Digest::of(b"upload")).await);
    tokio::time::advance(Duration::from_hours(1)).await;
    bench.collect().await;
    assert!(!bench.has(&early).await && !bench.has(&Digest::of(b"upload")).await);
}

#[tokio::test(start_paused = true)]
async fn a_push_of_what_is_here_already_is_protected_like_a_new_one() {
    // The client was told that its push had succeeded; the layer that it relied on was collected before its manifest came.
    let bench = Bench::new(Duration::from_hours(1)).await;
    bench.image("layer", &["main"]).await;
    bench.untag("main").await;
    tokio::time::advance(Duration::from_hours(2)).await;
    let link = vec![Put::Link { digest: Digest::of(b"layer") }];
    bench.store.commit_if(&bench.of, link, Vec::new()).await.unwrap();
    let progress = bench.collect().await;
    assert_eq!((progress.manifests, progress.waiting), (1, 1));
    assert!(bench.has(&Digest::of(b"layer")).await);
}

#[tokio::test]
async fn what_a_run_saw_stays_while_it_lives() {
    let bench = Bench::new(Duration::ZERO).await;
    let seen = bench.image("seen", &["ci"]).await;
    let tag: Tag = "ci".parse().unwrap();
    bench.runs.pin("run-1", &bench.of, &tag, seen).await.unwrap();
    bench.untag("ci").await;
    assert_eq!(bench.collect().await.waiting, 1);
    assert!(bench.has(&seen).await && bench.has(&Digest::of(b"seen")).await);
    bench.runs.end("run-1").await.unwrap();
    bench.collect().await;
    assert!(!bench.has(&seen).await);
}

#[tokio::test]
async fn a_clock_that_was_set_ages_nothing() {
    let bench = Bench::new(Duration::ZERO).await;
    let old = bench.image("old", &["main"]).await;
    bench.image("new", &["main"]).await;
    bench.collect().await;
    bench.clock.jump(Duration::from_hours(9_600));
    let progress = bench.collect().await;
    assert!(progress.remark.is_some_and(|remark| remark.contains("9600 hours")));
    assert!(bench.has(&old).await);
}

#[tokio::test]
async fn build_caches_go_after_their_last_import_and_when_they_are_too_many() {
    let cache = |manifest: &str| {
        let config = described(&Digest::of(b"{}"), 2, MediaType::BUILDKIT_CACHE);
        let layer = described(&Digest::of(manifest.as_bytes()), manifest.len(), "application/x");
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{config},"layers":[{layer}]}}"#,
            MediaType::OCI_MANIFEST
        );
        Manifest::parse(text.into(), MediaType::OCI_MANIFEST).unwrap()
    };
    let rule = config::BuildCache {
        pattern: "cache/**".parse().unwrap(),
        tag: "{branch|slug}".parse().unwrap(),
        fallback: Vec::new(),
        max_size_each: Some(2 * cache("x").size() + 20),
        replaced_grace: config::BuildCache::REPLACED_GRACE,
        keep_imported: Some(Duration::from_hours(100)),
    };
    let bench = Bench::with(Duration::ZERO, vec![rule]).await;
    let day = Duration::from_hours(24);
    bench.image("an image is no cache", &["image"]).await;
    let old = bench.put(&cache("old"), &["{}", "old"], &["old"]).await;
    bench.clock.advance(day);
    let imported = bench.put(&cache("imported"), &["imported"], &["imported"]).await;
    bench.clock.advance(3 * day);
    bench.store.used_tag(&bench.of, &"imported".parse().unwrap(), bench.clock.now());
    bench.collect().await;
    assert!(bench.has(&old).await && bench.has(&imported).await);
    bench.clock.advance(day);
    assert_eq!(bench.collect().await.cache_tags, 1);
    assert!(!bench.has(&old).await && bench.has(&imported).await);
    // There is room for two of the three: the one that was imported longest ago goes.
    for name in ["x", "y"] {
        bench.put(&cache(name), &[name], &[name]).await;
    }
    let progress = bench.collect().await;
    assert_eq!(progress.cache_tags, 1);
    assert!(!bench.has(&imported).await && bench.has(&cache("y").digest()).await);
}
