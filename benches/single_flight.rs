//! Many clients of one cold blob: what the upstream sees, how long the slowest waits, when the first bytes come.
//!
//! `cargo bench --bench single_flight`
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    dead_code,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a benchmark prints, ends when something is not as it should be, and uses a part of what is shared"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::client;
use support::client::Connection;
use support::origin::Origin;
use support::server::Server;
use support::table::Table;

const MIB: usize = 1 << 20;
/// Bytes a second of the slow upstream.
const SLOW: u64 = 20_000_000;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let (slow, fast) = (Origin::start(Some(SLOW)), Origin::start(None));
    let config = serde_json::json!({ "upstreams": {
        "slow.test": { "endpoints": [slow.url()] }, "fast.test": { "endpoints": [fast.url()] },
    } });
    let larder = Server::larder(folder.path(), &config);
    throttled(&larder, &slow);
    unlimited(&larder, &fast);
}

fn path(host: &str, digest: &larder::oci::Digest) -> String {
    format!("/v2/{host}/app/blobs/{digest}")
}

/// The answers' times to the first byte and to the end, sorted.
fn times(answers: &[client::Answer]) -> (Vec<Duration>, Vec<Duration>) {
    let (mut first, mut whole): (Vec<_>, Vec<_>) = answers.iter().map(|a| (a.first_byte, a.whole)).unzip();
    first.sort();
    whole.sort();
    (first, whole)
}

/// Behind an upstream of 20 MB/s, beside one client that asks it directly.
fn throttled(larder: &Server, origin: &Origin) {
    let size = if support::quick() { 4 * MIB } else { 64 * MIB };
    let mut table = Table::new(&[
        "clients",
        "upstream GETs",
        "slowest to direct",
        "first byte: median ms",
        "last ms",
        "CPU s per GB sent",
    ]);
    let direct_digest = origin.add_blob(Arc::new(support::bytes(1, size)));
    let direct = Connection::open(origin.address).get(&path("slow", &direct_digest));
    for (seed, clients) in [(2, 1), (3, 50), (4, 200)] {
        let digest = origin.add_blob(Arc::new(support::bytes(seed, size)));
        let (before, cpu) = (origin.transfers(), larder.cpu());
        let answers = client::herd(larder.address, &path("slow.test", &digest), clients);
        assert!(answers.iter().all(|a| a.status == 200 && a.bytes == size as u64));
        let (first, whole) = times(&answers);
        table.row([
            clients.to_string(),
            (origin.transfers() - before).to_string(),
            format!("{:.2}", whole[clients - 1].as_secs_f64() / direct.whole.as_secs_f64()),
            format!("{:.1}", first[clients / 2].as_secs_f64() * 1000.0),
            format!("{:.1}", first[clients - 1].as_secs_f64() * 1000.0),
            format!("{:.2}", (larder.cpu() - cpu) / ((size * clients) as f64 / 1e9)),
        ]);
    }
    table.print(&format!(
        "One cold blob of {} MiB behind an upstream of 20 MB/s (direct: {:.2} s)",
        size / MIB,
        direct.whole.as_secs_f64()
    ));
}

/// Behind an upstream without a limit, beside the same clients when the blob is held.
fn unlimited(larder: &Server, origin: &Origin) {
    let (size, clients) = (if support::quick() { 4 * MIB } else { 64 * MIB }, 50);
    let mut table = Table::new(&["round", "upstream GETs", "cold s", "warm s", "cold to warm"]);
    let mut ratios = Vec::new();
    for round in 0..support::rounds(3) {
        let digest = origin.add_blob(Arc::new(support::bytes(10 + round as u64, size)));
        let before = origin.transfers();
        let slowest = || {
            let answers = client::herd(larder.address, &path("fast.test", &digest), clients);
            assert!(answers.iter().all(|a| a.status == 200 && a.bytes == size as u64));
            times(&answers).1[clients - 1].as_secs_f64()
        };
        let (cold, warm) = (slowest(), slowest());
        ratios.push(cold / warm);
        table.row([
            (round + 1).to_string(),
            (origin.transfers() - before).to_string(),
            format!("{cold:.2}"),
            format!("{warm:.2}"),
            format!("{:.2}", cold / warm),
        ]);
        origin.forget(&digest);
    }
    table.print(&format!("{clients} clients of one blob of {} MiB, upstream without a limit", size / MIB));
    println!("\nMedian of cold to warm: {}", support::median(&ratios));
}
