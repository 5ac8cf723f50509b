//! The store: durable commits a second; lookups in repositories of 1, 1,000 and 100,000 manifests, the time of a start and of a
//! rebuild, and what a client waits for meanwhile. `cargo bench --bench store`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench stops at the first surprise, and its output is its result"
)]

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use larder::clock::Clock;
use larder::clock::Timestamp;
use larder::config::Config;
use larder::config::store::Durability;
use larder::oci::Digest;
use larder::oci::Manifest;
use larder::oci::MediaType;
use larder::oci::RepositoryKey;
use larder::store::Origin;
use larder::store::Put;
use larder::store::Store;
use larder::store::StoreOptions;
use larder::tasks::Tasks;
use larder::telemetry::Metrics;
use tokio::time::Instant;

/// Manifests of one commit while the folder is filled.
const BATCH: usize = 250;
/// Lookups that are timed.
const LOOKUPS: u32 = 20_000;

async fn open(folder: &std::path::Path, durability: Durability) -> (Store, Tasks) {
    let mut store = Config::default().store;
    store.path = folder.to_owned();
    store.durability = durability;
    let tasks = Tasks::new();
    let options = StoreOptions { store, lease: Duration::ZERO };
    let store = Store::open(options, Clock::system(), tasks.clone(), Arc::new(Metrics::new())).await.unwrap();
    (store, tasks)
}

async fn close(store: Store, tasks: Tasks) {
    store.close().await.unwrap();
    tasks.stop().await;
    drop(store);
    tasks.join_threads();
}

fn manifest(number: usize) -> Manifest {
    let child = Digest::of(b"config");
    let media_type = MediaType::OCI_MANIFEST;
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{{"mediaType":"a/b","digest":"{child}","size":6}},"annotations":{{"n":"{number}"}}}}"#
    );
    Manifest::parse(text.into(), media_type).unwrap()
}

fn puts(number: usize) -> [Put; 2] {
    let manifest = manifest(number);
    let digest = manifest.digest();
    let (media_type, size) = (manifest.media_type.clone(), manifest.size());
    let tag = format!("t{number}").parse().unwrap();
    [Put::Manifest { manifest, digest }, Put::Tag { tag, digest, media_type, size, pusher: None }]
}

fn quick() -> bool {
    std::env::var_os("LARDER_BENCH_QUICK").is_some()
}

/// Nanoseconds of a lookup of a tag, and of what it means, in memory and past it.
async fn lookups(store: &Store, of: &RepositoryKey, count: usize) -> (u128, u128, u128) {
    let known: Vec<_> =
        (0..count.min(1000)).map(|n| (format!("t{n}").parse().unwrap(), manifest(n).digest())).collect();
    let mut cold = Duration::ZERO;
    for (tag, digest) in &known {
        let start = Instant::now();
        store.tag(of, tag).await.unwrap().unwrap();
        store.held(of, digest).await.unwrap().unwrap();
        cold += start.elapsed();
    }
    let (mut tags, mut digests) = (Duration::ZERO, Duration::ZERO);
    for (tag, digest) in known.iter().cycle().take(LOOKUPS as usize) {
        let start = Instant::now();
        let _tag = store.peek_tag(of, tag).unwrap();
        tags += start.elapsed();
        let start = Instant::now();
        let _held = store.peek(of, digest).unwrap();
        digests += start.elapsed();
        store.used(of, digest, Timestamp(1));
    }
    (cold.as_nanos() / known.len() as u128, (tags / LOOKUPS).as_nanos(), (digests / LOOKUPS).as_nanos())
}

/// Commits of a small blob a second, each durable, by so many callers.
async fn commits(callers: usize) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let (store, tasks) = open(folder.path(), Durability::Strict).await;
    let each = if quick() { 5 } else { 400 / callers };
    let start = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let store = store.clone();
        running.spawn(async move {
            let of = RepositoryKey::from_path("docker.io/library/alpine").unwrap();
            for number in 0..each {
                let bytes = Bytes::from(format!("{caller} {number}"));
                let digest = Digest::of(&bytes);
                let verified = store.spool().stage(bytes, digest).await.unwrap();
                store.commit(&of, Origin::Proxied, vec![Put::Blob(verified)]).await.unwrap();
            }
        });
    }
    running.join_all().await;
    let took = start.elapsed().as_secs_f64();
    close(store, tasks).await;
    f64::from(u32::try_from(each * callers).unwrap()) / took
}

/// Seconds of a rebuild, and milliseconds of the slowest lookup and the slowest commit meanwhile.
async fn rebuild(store: &Store, of: &RepositoryKey) -> (f64, f64, f64) {
    let slowest = Mutex::new((Duration::ZERO, Duration::ZERO));
    let beside = async {
        let (mut lookup, mut commit) = (Duration::ZERO, Duration::ZERO);
        for number in 0_usize.. {
            let start = Instant::now();
            store.tag(of, &"t0".parse().unwrap()).await.unwrap().unwrap();
            lookup = lookup.max(start.elapsed());
            if number % 10 == 0 {
                let start = Instant::now();
                store.commit(of, Origin::Proxied, puts(number % 1000).into()).await.unwrap();
                commit = commit.max(start.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            *slowest.lock().unwrap() = (lookup, commit);
        }
    };
    let start = Instant::now();
    tokio::select! {
        rebuilt = store.rebuild() => rebuilt.unwrap(),
        () = beside => {}
    }
    let took = start.elapsed().as_secs_f64();
    let (lookup, commit) = slowest.into_inner().unwrap();
    (took, lookup.as_secs_f64() * 1000.0, commit.as_secs_f64() * 1000.0)
}

#[tokio::main]
async fn main() {
    println!("durable commits of a small blob a second: {:.0} by one caller", commits(1).await);
    println!("durable commits of a small blob a second: {:.0} by eight", commits(8).await);
    println!(
        "{:>9} {:>12} {:>12} {:>12} {:>12} {:>10} {:>12} {:>12} {:>12}",
        "manifests", "relaxed/s", "cold ns", "tag ns", "digest ns", "start ms", "rebuild s", "lookup ms", "commit ms"
    );
    let counts: &[usize] = if quick() { &[1, 1_000] } else { &[1, 1_000, 100_000] };
    for &count in counts {
        let folder = tempfile::tempdir().unwrap();
        let of = RepositoryKey::from_path("docker.io/library/alpine").unwrap();
        // The order of writes is the same, and this is not about the disk.
        let (store, tasks) = open(folder.path(), Durability::Relaxed).await;
        let start = Instant::now();
        for first in (0..count).step_by(BATCH) {
            let batch = (first..count.min(first + BATCH)).flat_map(puts).collect();
            store.commit(&of, Origin::Proxied, batch).await.unwrap();
        }
        let filled = f64::from(u32::try_from(count).unwrap()) / start.elapsed().as_secs_f64();
        close(store, tasks).await;
        // Else the first durable commit waits for all of these files.
        rustix::fs::sync();
        let start = Instant::now();
        let (store, tasks) = open(folder.path(), Durability::Strict).await;
        let opened = start.elapsed().as_secs_f64() * 1000.0;
        let (cold, tag, digest) = lookups(&store, &of, count).await;
        let (rebuilt, lookup, commit) = rebuild(&store, &of).await;
        println!(
            "{count:>9} {filled:>12.0} {cold:>12} {tag:>12} {digest:>12} {opened:>10.1} {rebuilt:>12.2} {lookup:>12.1} {commit:>12.1}"
        );
        close(store, tasks).await;
    }
}
