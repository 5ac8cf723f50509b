//! Digests: how fast bytes are hashed, and what it takes to read and write one.
//!
//! `cargo bench --bench digest`
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

use std::hint::black_box;

use larder::oci::Algorithm;
use larder::oci::Digest;
use support::median;
use support::table::Table;
use tokio::time::Instant;

fn main() {
    hashing();
    text();
}

/// Seconds that `work` takes, the median of rounds.
fn seconds(work: impl Fn()) -> f64 {
    let rounds: Vec<f64> = (0..support::rounds(9))
        .map(|_| {
            let began = Instant::now();
            work();
            began.elapsed().as_secs_f64()
        })
        .collect();
    median(&rounds).value
}

fn hashing() {
    let mut table = Table::new(&["algorithm", "pieces of", "GB/s"]);
    let total = if support::quick() { 4 << 20 } else { 64 << 20 };
    let bytes = support::bytes(1, total);
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for piece in [1 << 10, 64 << 10, 1 << 20] {
            let took = seconds(|| {
                for piece in bytes.chunks(piece) {
                    black_box(Digest::of_with(algorithm, black_box(piece)));
                }
            });
            let rate = total as f64 / took / 1e9;
            table.row([algorithm.as_str().to_owned(), format!("{} KiB", piece >> 10), format!("{rate:.2}")]);
        }
    }
    table.print("Hashing");
}

fn text() {
    let mut table = Table::new(&["one digest", "ns"]);
    let count = if support::quick() { 1_000 } else { 200_000 };
    let digest = Digest::of(b"x");
    let written = digest.to_string();
    let each = |took: f64| format!("{:.0}", took / f64::from(count) * 1e9);
    let parse = seconds(|| {
        for _ in 0..count {
            let _ = black_box(black_box(written.as_str()).parse::<Digest>());
        }
    });
    let write = seconds(|| {
        for _ in 0..count {
            black_box(black_box(&digest).to_string());
        }
    });
    table.row(["read".to_owned(), each(parse)]);
    table.row(["written".to_owned(), each(write)]);
    table.print("As text");
}
