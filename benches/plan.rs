//! Plans of retention: the decision over the histories of Docker's official images, and a whole plan of a server that hosts
//! 100,000 tags. `cargo bench --bench plan`; the histories are in the folder that `LARDER_DATA` names.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    dead_code,
    missing_debug_implementations,
    unreachable_pub,
    unused_imports,
    reason = "a benchmark prints, ends when something is not as it should be, and uses a part of what is shared"
)]

#[path = "../tests/histories/data.rs"]
mod data;
mod support;

use std::process::Command;
use std::process::Stdio;

use larder::config::store::Durability;
use larder::oci::Digest;
use larder::oci::Manifest;
use larder::oci::MediaType;
use larder::retention::plan::Knowledge;
use larder::retention::sizes::Root;
use larder::store::Origin;
use larder::store::Put;
use larder::store::Store;
use support::seed;
use support::server::Server;
use support::table::Table;
use tokio::time::Instant;

/// Tags that the server hosts.
const TAGS: usize = 100_000;
/// In so many repositories.
const REPOSITORIES: usize = 100;
/// Manifests that one commit takes.
const BATCH: usize = 250;

fn main() {
    histories();
    served();
}

/// Bytes of this process's memory that are no file's.
fn memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    kib.trim_end_matches("kB").trim().parse::<f64>().unwrap() * 1024.0
}

fn milliseconds(began: Instant) -> String {
    format!("{:.0} ms", began.elapsed().as_secs_f64() * 1000.0)
}

/// The decision and its bytes over every state that a tag ever had.
fn histories() {
    let Some(folder) = data::folder() else { return };
    let images = data::Images::read(&folder);
    let places = images.places(|_| true);
    let tags: usize = places.iter().map(|place| place.holding.tags.len()).sum();
    let layers: std::collections::HashSet<Digest> = places
        .iter()
        .flat_map(|place| &place.holding.manifests)
        .flat_map(|one| &one.blobs)
        .map(|blob| blob.0)
        .collect();
    let policy = data::policies(
        "{ name: p, repositories: [\"cache/{repo}\"], select: [\"{name}.{n}\"], count_by: name, keep: [{ newest: 3 }], grace: 0s }",
    );
    let mut table = Table::new(&["step", "time", "memory"]);
    let before = memory();
    let began = Instant::now();
    let graph = data::graph(&places);
    let took = milliseconds(began);
    let of_graph = memory() - before;
    table.row(["graph of manifests and layers".to_owned(), took, format!("{:.1} MiB", of_graph / 1_048_576.0)]);
    let began = Instant::now();
    let decided = data::decide(&places, &graph, &policy, &Knowledge::default(), images.end * 1000);
    table.row(["decision".to_owned(), milliseconds(began), String::new()]);
    let began = Instant::now();
    let roots = data::roots(&places, &graph, &decided);
    let freed = graph.taken(&roots, 2)[0].exclusive;
    table.row(["bytes of the plan".to_owned(), milliseconds(began), String::new()]);
    let began = Instant::now();
    let each: Vec<Root> = (0..).zip(&roots).map(|(owner, root)| Root { owner, ..*root }).collect();
    let taken = graph.taken(&each, each.len());
    table.row(["bytes of each tag".to_owned(), milliseconds(began), String::new()]);
    assert_eq!(taken.len(), tags);
    table.print(&format!(
        "{tags} states of tags, {} manifests, {} layers, {freed} bytes go; {:.0} bytes of memory a layer",
        images.layers.len(),
        layers.len(),
        of_graph / layers.len() as f64
    ));
}

/// A repository with its share of the tags: three of four are of branches' builds, each build shares layers with others.
async fn fill(store: &Store, number: usize) {
    let of = seed::key(&format!("_hosted/cache/app{number}"));
    let mut layers = Vec::new();
    for layer in 0..100 {
        let bytes = format!("{number} {layer}").into_bytes();
        let digest = Digest::of(&bytes);
        let staged = store.spool().stage(bytes.into(), digest).await.unwrap();
        layers.push((digest, digest.hex().len()));
        store.commit(&of, Origin::Pushed, vec![Put::Blob(staged)]).await.unwrap();
    }
    let each = TAGS / REPOSITORIES;
    for first in (0..each).step_by(BATCH) {
        let mut puts = Vec::new();
        for build in first..each.min(first + BATCH) {
            let listed: Vec<String> = (0..6)
                .map(|at| {
                    let (digest, size) = &layers[(build * 7 + at * 13) % layers.len()];
                    format!(
                        r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":{size}}}"#
                    )
                })
                .collect();
            let document = format!(
                r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}],"annotations":{{"of":"{build}"}}}}"#,
                MediaType::OCI_MANIFEST,
                listed[0],
                listed[1..].join(",")
            );
            let manifest = Manifest::parse(document.into(), MediaType::OCI_MANIFEST).unwrap();
            let (digest, media_type, size) = (manifest.digest(), manifest.media_type.clone(), manifest.size());
            let tag = format!("branch-{}-{build:07x}", build % 50).parse().unwrap();
            puts.push(Put::Manifest { manifest, digest });
            puts.push(Put::Tag { tag, digest, media_type, size, pusher: None });
        }
        store.commit(&of, Origin::Pushed, puts).await.unwrap();
    }
}

/// `larder prune --json`, from the command to its last byte: the store is read, decided on and written out.
fn served() {
    let folder = tempfile::tempdir().unwrap();
    seed::fill(folder.path(), Durability::Relaxed, async |store| {
        for number in 0..REPOSITORIES {
            fill(store, number).await;
        }
    });
    let policies = serde_json::json!([{
        "name": "branches", "repositories": ["cache/{repo}"], "select": ["{branch|slug}-{sha:7}"],
        "keep": [{ "newest": 3 }, { "pulled_within": "1d", "pushed_within": "1ms" }], "grace": "0s",
    }]);
    let larder = Server::larder(folder.path(), &serde_json::json!({ "retention": { "policies": policies } }));
    let mut table = Table::new(&["plan", "time", "memory before", "memory at most"]);
    for round in ["the first", "the second"] {
        let before = larder.memory();
        let began = Instant::now();
        let program = std::env::var_os("LARDER").unwrap_or_else(|| env!("CARGO_BIN_EXE_larder").into());
        let file = folder.path().join("larder.yaml");
        let mut command = Command::new(program);
        let asked =
            command.arg("prune").arg("--config").arg(file).arg("--json").stderr(Stdio::inherit()).output().unwrap();
        assert!(asked.status.success());
        let took = milliseconds(began);
        let plan: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
        // What came in one commit has one rank.
        let kept = plan["kept"].as_array().unwrap().len();
        assert!((REPOSITORIES * 50 * 3..TAGS / 2).contains(&kept), "{kept} are kept");
        assert_eq!(kept + plan["plan"]["deletes"].as_array().unwrap().len(), TAGS);
        let mib = |bytes: f64| format!("{:.0} MiB", bytes / 1_048_576.0);
        table.row([round.to_owned(), took, mib(before), mib(larder.peak())]);
    }
    table.print(&format!("A server that hosts {TAGS} tags in {REPOSITORIES} repositories"));
}
