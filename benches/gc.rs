//! Collecting: what it costs to look at everything, what it costs to remove, and what clients feel of it.
//! `cargo bench --bench gc`
//!
//! Images of ten blobs lie in one hosted repository; every tenth image has lost its tag and goes. Clients pull manifests and
//! blobs of the others before and meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    dead_code,
    unused_imports,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a benchmark prints, ends when something is not as it should be, and uses a part of what is shared"
)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use larder::config::store::Durability;
use larder::oci::Digest;
use larder::oci::Manifest;
use larder::oci::MediaType;
use larder::store::Origin;
use larder::store::Put;
use larder::store::Removal;
use larder::store::Store;
use support::client::Connection;
use support::seed;
use support::server::Server;
use support::server::free_address;
use support::table::Table;
use tokio::time::Instant;

/// Blobs of an image.
const LAYERS: usize = 10;
/// Images of one commit while the folder is filled.
const BATCH: usize = 25;
/// Connections that pull meanwhile.
const CLIENTS: usize = 4;

fn main() {
    // `LARDER_BENCH_BLOBS=100000` measures that one alone: a million of them are filled in for minutes.
    let asked = std::env::var("LARDER_BENCH_BLOBS").ok().and_then(|text| text.parse().ok());
    let usual: &[usize] = if support::quick() { &[1_000] } else { &[10_000, 100_000, 1_000_000] };
    let counts = asked.map_or_else(|| usual.to_vec(), |blobs: usize| vec![blobs]);
    let mut table = Table::new(&[
        "blobs",
        "look s",
        "look CPU s",
        "links/s",
        "remove s",
        "remove CPU s",
        "removed/s",
        "p99 ms idle",
        "p99 ms meanwhile",
        "ratio",
    ]);
    for blobs in counts {
        let folder = tempfile::tempdir().unwrap();
        let images = blobs / LAYERS;
        seed::fill(folder.path(), Durability::Relaxed, async |store| fill(store, images).await);
        // Else the first durable removal waits for all of these files.
        rustix::fs::sync();
        let admin = free_address();
        let config = serde_json::json!({
            "admin": { "listen": admin.to_string() }, "gc": { "every": "0s", "lease": "0s" },
        });
        let larder = Server::larder(folder.path(), &config);
        let seconds = if support::quick() { 1 } else { 8 };
        let idle = p99(&pulls(larder.address, images, Until::Passed(Duration::from_secs(seconds))));
        let (remove, during_removal) = measured(&larder, admin, images);
        let (look, during_look) = measured(&larder, admin, images);
        let meanwhile = p99(&during_removal).max(p99(&during_look));
        let links = (images + blobs) as f64 * 0.9;
        table.row([
            blobs.to_string(),
            format!("{:.2}", look.seconds),
            format!("{:.2}", look.cpu),
            format!("{:.0}", links / look.seconds),
            format!("{:.2}", remove.seconds),
            format!("{:.2}", remove.cpu),
            format!("{:.0}", links / 9.0 / remove.seconds),
            format!("{idle:.2}"),
            format!("{meanwhile:.2}"),
            format!("{:.2}", meanwhile / idle),
        ]);
    }
    table.print("Collecting beside pulls");
}

fn layer(image: usize, number: usize) -> Vec<u8> {
    format!("layer {number} of {image}").into_bytes()
}

fn manifest(image: usize) -> Manifest {
    let layers: Vec<String> = (0..LAYERS)
        .map(|number| {
            let bytes = layer(image, number);
            let digest = Digest::of(&bytes);
            format!(r#"{{"mediaType":"application/x","digest":"{digest}","size":{}}}"#, bytes.len())
        })
        .collect();
    let media_type = MediaType::OCI_MANIFEST;
    let text = format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","layers":[{}]}}"#, layers.join(","));
    Manifest::parse(text.into(), media_type).unwrap()
}

async fn fill(store: &Store, images: usize) {
    let of = seed::key("_hosted/cache/app");
    let mut commits = tokio::task::JoinSet::new();
    for first in (0..images).step_by(BATCH) {
        let (store, of) = (store.clone(), of.clone());
        commits.spawn(async move {
            let mut puts = Vec::new();
            for image in first..images.min(first + BATCH) {
                for number in 0..LAYERS {
                    let bytes = Bytes::from(layer(image, number));
                    let digest = Digest::of(&bytes);
                    puts.push(Put::Blob(store.spool().stage(bytes, digest).await.unwrap()));
                }
                let manifest = manifest(image);
                let (digest, media_type, size) = (manifest.digest(), manifest.media_type.clone(), manifest.size());
                let tag = format!("t{image}").parse().unwrap();
                puts.push(Put::Manifest { manifest, digest });
                puts.push(Put::Tag { tag, digest, media_type, size, pusher: None });
            }
            store.commit(&of, Origin::Pushed, puts).await.unwrap();
        });
        if commits.len() >= 4 {
            commits.join_next().await;
        }
    }
    commits.join_all().await;
    for image in (0..images).step_by(10) {
        let removal = Removal::Tag(format!("t{image}").parse().unwrap());
        assert!(store.remove(&of, removal, Arc::new(|_| false)).await.unwrap());
    }
}

/// Until when clients pull.
#[derive(Clone, Copy)]
enum Until<'a> {
    Passed(Duration),
    Told(&'a AtomicBool),
}

/// Clients that pull manifests by tag and blobs, each after the other, with a pause as people's programs have; how long each
/// pull took.
fn pulls(to: SocketAddr, images: usize, until: Until<'_>) -> Vec<Duration> {
    let began = Instant::now();
    let goes_on = move || match until {
        Until::Passed(time) => began.elapsed() < time,
        Until::Told(over) => !over.load(Ordering::Relaxed),
    };
    std::thread::scope(|scope| {
        let pulling = (0..CLIENTS).map(|client| {
            scope.spawn(move || {
                let mut connection = Connection::open(to);
                let mut times = Vec::new();
                for n in 0.. {
                    if !goes_on() {
                        break;
                    }
                    // Those that are kept, a thousand of them: they are in memory, as what is pulled often is.
                    let image = (client * 251 + n) % images.min(1000) / 10 * 10 + 1;
                    let digest = Digest::of(&layer(image, n % LAYERS));
                    for path in [format!("manifests/t{image}"), format!("blobs/{digest}")] {
                        let answer = connection.get(&format!("/v2/cache/app/{path}"));
                        assert_eq!(answer.status, 200, "{}", answer.head);
                        times.push(answer.whole);
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                times
            })
        });
        let pulling: Vec<_> = pulling.collect();
        pulling.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// Milliseconds that one pull in a hundred exceeds.
fn p99(times: &[Duration]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() * 99 / 100).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}

struct Cost {
    seconds: f64,
    cpu: f64,
}

/// One collection beside pulls. The CPU is the collection's and the pulls'.
fn measured(larder: &Server, admin: SocketAddr, images: usize) -> (Cost, Vec<Duration>) {
    let over = AtomicBool::new(false);
    let (before, began) = (larder.cpu(), Instant::now());
    std::thread::scope(|scope| {
        let pulling = scope.spawn(|| pulls(larder.address, images, Until::Told(&over)));
        collect(admin);
        let cost = Cost { seconds: began.elapsed().as_secs_f64(), cpu: larder.cpu() - before };
        over.store(true, Ordering::Relaxed);
        (cost, pulling.join().unwrap())
    })
}

/// A collection of everything, to its end.
fn collect(admin: SocketAddr) {
    use std::io::Read as _;
    use std::io::Write as _;
    let mut stream = std::net::TcpStream::connect(admin).unwrap();
    stream
        .write_all(b"POST /api/v1/gc HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.contains(r#""done":true"#) && !said.contains("failed"), "{said}");
}
