use std::fs;
use std::sync::Arc;

use super::*;
use crate::config::Config;
use crate::oci::RepositoryKey;
use crate::store::Origin;
use crate::store::Put;
use crate::store::StoreOptions;
use crate::telemetry::Metrics;

const FAST: u64 = 1 << 40;

struct Bench {
    folder: tempfile::TempDir,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Bench {
    fn new() -> Self {
        let clock = Clock::manual(Timestamp(1));
        Self { folder: tempfile::tempdir().unwrap(), clock, metrics: Arc::new(Metrics::new()) }
    }

    async fn open(&self, rate: u64) -> Scrub {
        let mut store = Config::default().store;
        store.path = self.folder.path().to_owned();
        store.reserve_free = 0;
        let tasks = Tasks::new();
        let options = StoreOptions { store, lease: Duration::ZERO };
        let store = Store::open(options, self.clock.clone(), tasks.clone(), Arc::clone(&self.metrics)).await.unwrap();
        Scrub::new(store, self.clock.clone(), tasks, rate)
    }

    fn path(&self, digest: &Digest) -> std::path::PathBuf {
        let hex = digest.hex();
        self.folder.path().join(format!("blobs/sha256/{}/{hex}.0", hex.get(..2).unwrap()))
    }
}

fn of(path: &str) -> RepositoryKey {
    RepositoryKey::from_path(path).unwrap()
}

async fn put(store: &Store, path: &str, origin: Origin, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let verified = store.spool().stage(bytes.to_vec().into(), digest).await.unwrap();
    store.commit(&of(path), origin, vec![Put::Blob(verified)]).await.unwrap();
    digest
}

async fn ended(scrub: &Scrub) -> Progress {
    let mut told = scrub.start();
    let last = told.wait_for(|now| now.as_ref().is_some_and(|progress| progress.done.is_some())).await.unwrap();
    last.clone().unwrap()
}

#[tokio::test]
async fn a_flipped_bit_and_a_cut_are_found_and_taken_out_of_use() {
    let bench = Bench::new();
    let scrub = bench.open(FAST).await;
    let large = vec![7; 3 * STEP_BYTES + 5];
    let flipped = put(&scrub.store, "docker.io/a", Origin::Proxied, &large).await;
    let cut = put(&scrub.store, "_hosted/cache/a", Origin::Pushed, b"cut").await;
    let sound = put(&scrub.store, "docker.io/a", Origin::Proxied, b"sound").await;
    let mut bytes = large.clone();
    bytes[2 * STEP_BYTES + 9] ^= 1;
    fs::write(bench.path(&flipped), bytes).unwrap();
    fs::write(bench.path(&cut), b"cu").unwrap();
    let mut progress = ended(&scrub).await;
    progress.failures.sort();
    let mut damaged = vec![flipped, cut];
    damaged.sort();
    assert_eq!((progress.checked, progress.done, progress.failures), (3, Some(true), damaged));
    assert!(scrub.store.held(&of("docker.io/a"), &flipped).await.unwrap().is_none());
    let held = scrub.store.held(&of("_hosted/cache/a"), &cut).await;
    assert!(matches!(held, Err(store::Error::Damaged { digest }) if digest == cut));
    assert!(scrub.store.held(&of("docker.io/a"), &sound).await.unwrap().is_some());
    assert!(bench.metrics.encode().contains("larder_scrub_failures_total 2"));
    put(&scrub.store, "docker.io/a", Origin::Proxied, &large).await;
    put(&scrub.store, "_hosted/cache/a", Origin::Pushed, b"cut").await;
    assert_eq!(ended(&scrub).await.failures, []);
}

#[tokio::test]
async fn a_pass_that_was_broken_off_goes_on_where_it_was() {
    let bench = Bench::new();
    let scrub = bench.open(FAST).await;
    let mut digests = Vec::new();
    for number in 0..5 {
        digests.push(put(&scrub.store, "docker.io/a", Origin::Proxied, format!("{number}").as_bytes()).await);
    }
    digests.sort();
    let mark = Mark { after: Some((digests[2], 0)), ended: None };
    scrub.write(mark).await.unwrap();
    assert_eq!(ended(&scrub).await.checked, 2);
    assert_eq!(scrub.mark().await, Mark { after: None, ended: Some(Timestamp(1)) });
    assert_eq!(ended(&scrub).await.checked, 5);
}

#[tokio::test]
async fn a_stop_breaks_a_slow_pass_off() {
    let bench = Bench::new();
    let scrub = bench.open(1).await;
    put(&scrub.store, "docker.io/a", Origin::Proxied, &[7; 4096]).await;
    let mut told = scrub.start();
    scrub.tasks.stop().await;
    let last = told.wait_for(|now| now.as_ref().is_some_and(|progress| progress.done.is_some())).await.unwrap();
    assert_eq!(last.as_ref().unwrap().done, Some(false));
}

#[tokio::test(start_paused = true)]
async fn a_pace_is_kept() {
    let mut pace = Pace::new(1000);
    let start = Instant::now();
    for _ in 0..4 {
        pace.spend(500).await;
    }
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}
