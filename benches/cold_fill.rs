//! One client and one cold blob: the time beside the same client at the upstream itself, and what larder's work costs.
//!
//! `cargo bench --bench cold_fill`
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

use support::client::Connection;
use support::median;
use support::origin::Origin;
use support::server::Server;
use support::table::Table;

const MIB: usize = 1 << 20;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let (limited, fast) = (Origin::start(Some(100_000_000)), Origin::start(None));
    let config = serde_json::json!({ "upstreams": {
        "limited.test": { "endpoints": [limited.url()] }, "fast.test": { "endpoints": [fast.url()] },
    } });
    let larder = Server::larder(folder.path(), &config);
    let mut table = Table::new(&[
        "upstream",
        "direct s",
        "through larder",
        "ratio",
        "first byte later by ms",
        "larder's CPU s per GB",
    ]);
    let quick = support::quick();
    let cases = [
        ("100 MB/s", "limited.test", &limited, if quick { 8 } else { 256 }, 2),
        ("without a limit", "fast.test", &fast, if quick { 8 } else { 512 }, 3),
    ];
    let mut sizes = Vec::new();
    for (seed, (name, host, origin, mib, rounds)) in cases.into_iter().enumerate() {
        let [mut direct, mut through, mut ratio, mut later, mut cpu] = [(); 5].map(|()| Vec::new());
        for round in 0..support::rounds(rounds) {
            let bytes = support::bytes((seed * 100 + round + 1) as u64, mib * MIB);
            let digest = origin.add_blob(Arc::new(bytes));
            // The connection is there in both cases: larder's own to the upstream is, from the second round on.
            let straight = Connection::open(origin.address).get(&format!("/v2/app/blobs/{digest}"));
            let before = larder.cpu();
            let pulled = Connection::open(larder.address).get(&format!("/v2/{host}/app/blobs/{digest}"));
            assert!(pulled.status == 200 && pulled.bytes == (mib * MIB) as u64, "{}", pulled.head);
            // What is left to do when the client has its last byte belongs to it.
            std::thread::sleep(Duration::from_millis(500));
            cpu.push((larder.cpu() - before) / ((mib * MIB) as f64 / 1e9));
            direct.push(straight.whole.as_secs_f64());
            through.push(pulled.whole.as_secs_f64());
            ratio.push(pulled.whole.as_secs_f64() / straight.whole.as_secs_f64());
            later.push((pulled.first_byte.as_secs_f64() - straight.first_byte.as_secs_f64()) * 1000.0);
            origin.forget(&digest);
        }
        let of = |values: &[f64]| format!("{:.2}", median(values).value);
        table.row([name.to_owned(), of(&direct), of(&through), median(&ratio).to_string(), of(&later), of(&cpu)]);
        sizes.push(format!("{mib} MiB {name}"));
    }
    table.print(&format!("One cold blob, one client: {}", sizes.join(", ")));
}
