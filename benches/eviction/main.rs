//! Which images should stay? Replays real histories through policies of eviction, larder's own code among them, and prints
//! how many requests and bytes each one answers without the upstream. `cargo bench --bench eviction`.
//!
//! The histories are not part of the repository: `LARDER_DATA` names their folder (`../shared/data` where it is not set).
//! Their pages say how they came about; `gzip` and `zstd` unpack them. Without them nothing is measured, which is said.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a bench stops at the first surprise, and its output is its result"
)]

mod policies;
mod replay;
#[path = "../support/table.rs"]
mod table;
mod traces;

use std::path::PathBuf;

use policies::Policy;
use replay::Moves;
use replay::Ratios;
use replay::Unit;
use table::Table;
use traces::Trace;

/// A policy that is replayed, and over what.
enum Contender {
    Other(&'static str, Unit, fn(u64) -> Box<dyn Policy>),
    Larder(&'static str, Moves),
}

use Contender::Larder;
use Contender::Other;

fn contenders() -> Vec<Contender> {
    let mut all = Vec::new();
    for (unit, names) in [
        (Unit::Blob, ["LRU", "LFU", "SIEVE", "S3-FIFO", "GDSF", "GDSF by cost of refetch"]),
        (
            Unit::Image,
            [
                "LRU, whole images",
                "LFU, whole images",
                "SIEVE, whole images",
                "S3-FIFO, whole images",
                "GDSF, whole images",
                "GDSF by cost of refetch, whole images",
            ],
        ),
    ] {
        let makers: [fn(u64) -> Box<dyn Policy>; 6] =
            [policies::lru, policies::lfu, policies::sieve, policies::s3_fifo, policies::gdsf, policies::gdsf_by_cost];
        all.extend(names.into_iter().zip(makers).map(|(name, make)| Other(name, unit, make)));
    }
    all.push(Larder("larder, moves of tags unknown", Moves::Never));
    all.push(Larder("larder, moves known at the next pull", Moves::AtPulls));
    all.push(Larder("larder, moves known at once", Moves::AtOnce));
    all
}

impl Contender {
    fn name(&self) -> &'static str {
        match self {
            Other(name, ..) | Larder(name, _) => name,
        }
    }

    fn run(&self, trace: &Trace, capacity: u64) -> Ratios {
        match self {
            Other(_, unit, make) => replay::through(trace, capacity, *unit, make(capacity)),
            Larder(_, moves) => replay::larder(trace, capacity, *moves),
        }
    }

    /// Whether it says anything of its own: without images and tags some are one and the same.
    fn differs(&self, trace: &Trace) -> bool {
        trace.has_images || matches!(self, Other(_, Unit::Blob, _) | Larder(_, Moves::Never))
    }
}

fn percent(share: f64) -> String {
    format!("{:.2}", share * 100.0)
}

fn compare(trace: &Trace, shares: [f64; 4], of: &str) {
    let title = format!("{}: {} requests, {} of {}", trace.name, trace.requests.len(), of, trace.unique());
    let headings: Vec<String> = shares.iter().map(|share| format!("{} %", share * 100.0)).collect();
    let headings: Vec<&str> = std::iter::once("policy").chain(headings.iter().map(String::as_str)).collect();
    let (mut requests, mut bytes, mut images) = (Table::new(&headings), Table::new(&headings), Table::new(&headings));
    for contender in contenders().iter().filter(|c| c.differs(trace)) {
        let ratios = shares.map(|share| contender.run(trace, (trace.unique() as f64 * share) as u64));
        let row = |of: fn(&Ratios) -> f64| {
            let [a, b, c, d] = ratios.each_ref().map(|r| percent(of(r)));
            [contender.name().to_owned(), a, b, c, d]
        };
        requests.row(row(|r| r.requests));
        bytes.row(row(|r| r.bytes));
        images.row(row(|r| r.images));
    }
    println!("\n# {title}");
    requests.print("Requests for blobs answered from here, in %");
    if trace.has_images {
        bytes.print("Bytes answered from here, in %");
        images.print("Images that were here whole, in %");
    }
}

fn main() {
    let folder = PathBuf::from(std::env::var("LARDER_DATA").unwrap_or_else(|_| "../shared/data".to_owned()));
    if !folder.join("ibm-dal09-3days").is_dir() {
        println!("no histories in {}: nothing was measured (LARDER_DATA names their folder)", folder.display());
        return;
    }
    let clouds = traces::of_a_cloud_registry(&folder.join("ibm-dal09-3days/ibm_docker_trace_725k.csv.zst"));
    compare(&clouds, [0.01, 0.05, 0.1, 0.2], "a cache of so many");
    let officials = traces::of_official_images(&folder.join("doi-2016-2018"), &folder.join("sim-reference"));
    compare(&officials, [0.02, 0.05, 0.1, 0.2], "a cache of so many bytes");
}
