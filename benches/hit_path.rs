//! What is held: requests a second and CPU beside nginx with the same bytes as files; the same in small and large
//! repositories; while the upstream is away; and the memory of idle and slow clients.
//!
//! `cargo bench --bench hit_path`
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

use std::path::Path;
use std::time::Duration;

use larder::config::store::Durability;
use larder::oci::Digest;
use support::client;
use support::client::Connection;
use support::median;
use support::origin::Mode;
use support::origin::Origin;
use support::seed;
use support::server::Server;
use support::server::free_address;
use support::table::Table;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GB: f64 = 1e9;

/// Connections of the load.
const CONNECTIONS: usize = 8;

/// What is in the store.
struct Held {
    /// Repositories with the count of their manifests.
    repositories: Vec<(&'static str, usize)>,
    /// The first manifest of each, as every one begins alike.
    manifest: Digest,
    small: Digest,
    large: Digest,
    /// More than the buffers of two sockets take; the first repository alone has it.
    huge: Digest,
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let held = fill(folder);
    let origin = Origin::start(None);
    let config = serde_json::json!({
        "upstreams": { "docker.io": { "endpoints": [origin.url()] } },
        "freshness": [{ "match": "**", "fresh_for": "1d" }],
    });
    let larder = Server::larder(folder, &config);
    let nginx = copy(folder, &larder, &held);
    match &nginx {
        Some(nginx) => check_same(&larder, nginx, &held),
        None => println!("nginx is not installed: figures of larder alone"),
    }
    let before = origin.asked();
    requests(&larder, nginx.as_ref(), &held);
    blobs(&larder, nginx.as_ref(), &held);
    latency(&larder, nginx.as_ref(), &held);
    growth(&larder, &held);
    memory(&larder, &held);
    println!("\nRequests that the upstream saw meanwhile: {}", origin.asked() - before);
    drop((larder, nginx, origin));
    outage();
}

fn fill(folder: &Path) -> Held {
    let most = if support::quick() { 2_000 } else { 100_000 };
    let repositories = vec![("library/one", 1), ("library/thousand", 1000), ("library/many", most)];
    let (mut held, mut huge) = (None, None);
    seed::fill(folder, Durability::Relaxed, async |store| {
        let first = seed::key(&format!("docker.io/{}", repositories[0].0));
        huge = Some(seed::blob(store, &first, support::bytes(3, 64 * MIB)).await);
        for (name, count) in &repositories {
            let of = seed::key(&format!("docker.io/{name}"));
            let small = seed::blob(store, &of, support::bytes(1, 64 * KIB)).await;
            let large = seed::blob(store, &of, support::bytes(2, 4 * MIB)).await;
            let manifests = seed::images(store, &of, &small, 64 * KIB, *count).await;
            held = Some((manifests[0], small, large));
        }
    });
    let (manifest, small, large) = held.unwrap();
    Held { repositories, manifest, small, large, huge: huge.unwrap() }
}

fn manifest(repository: &str, reference: impl std::fmt::Display) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

fn blob(repository: &str, digest: &Digest) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

fn paths(held: &Held) -> [String; 5] {
    let of = held.repositories[0].0;
    [
        manifest(of, held.manifest),
        manifest(of, "v0"),
        blob(of, &held.small),
        blob(of, &held.large),
        blob(of, &held.huge),
    ]
}

/// nginx before files at the paths at which larder has them.
fn copy(folder: &Path, larder: &Server, held: &Held) -> Option<Server> {
    let root = folder.join("www");
    for path in paths(held) {
        let file = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, Connection::open(larder.address).read(&path).1).unwrap();
    }
    Server::nginx(folder, &root)
}

fn check_same(larder: &Server, nginx: &Server, held: &Held) {
    for path in paths(held) {
        let (ours, theirs) =
            (Connection::open(larder.address).read(&path), Connection::open(nginx.address).read(&path));
        assert_eq!((ours.0.status, theirs.0.status), (200, 200), "{path}");
        assert!(ours.1 == theirs.1, "{path}: other bytes");
        assert!(ours.0.head.contains("larder; hit"), "{path}: {}", ours.0.head);
    }
}

/// Rounds of both servers, the one right after the other: each round's figures of larder, and of nginx.
fn interleave<const N: usize>(
    larder: &Server,
    nginx: Option<&Server>,
    rounds: usize,
    measure: impl Fn(&Server) -> [f64; N],
) -> (Vec<[f64; N]>, Vec<[f64; N]>) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        theirs.extend(nginx.map(&measure));
        ours.push(measure(larder));
    }
    (ours, theirs)
}

/// The median of column `at`, and of its ratio to the other server's, round by round.
fn columns<const N: usize>(ours: &[[f64; N]], theirs: &[[f64; N]], at: usize) -> (String, String) {
    let values: Vec<f64> = ours.iter().map(|round| round[at]).collect();
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a[at] / b[at]).collect();
    let value = median(&values).value;
    let shown = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") };
    (shown, if ratios.is_empty() { "-".to_owned() } else { median(&ratios).to_string() })
}

/// Small requests: how many a second, and what a thousand of them cost.
fn requests(larder: &Server, nginx: Option<&Server>, held: &Held) {
    let (wrk, heads) = (client::wrk_is_here(), if support::quick() { 500 } else { 20_000 });
    if !wrk {
        println!("\nwrk is not installed: the client of these figures is a slower one");
    }
    let mut table = Table::new(&["request", "requests/s", "to nginx", "CPU s per 1,000", "to nginx"]);
    let [by_digest, by_tag, small, ..] = paths(held);
    for (name, method, path) in [
        ("manifest by digest, GET", "GET", &by_digest),
        ("manifest by fresh tag, GET", "GET", &by_tag),
        ("manifest by fresh tag, HEAD", "HEAD", &by_tag),
        ("blob, HEAD", "HEAD", &small),
        ("blob of 64 KiB, GET", "GET", &small),
    ] {
        let (ours, theirs) = interleave(larder, nginx, support::rounds(5), |server| {
            let before = server.cpu();
            let rate = if wrk && method == "GET" {
                client::wrk(server.address, path, CONNECTIONS, 1)
            } else {
                let wall = client::repeat(server.address, method, path, CONNECTIONS, heads);
                client::Rate { requests: heads as f64, per_second: heads as f64 / wall.as_secs_f64() }
            };
            [rate.per_second, (server.cpu() - before) / rate.requests * 1000.0]
        });
        let ((rate, rate_ratio), (cpu, cpu_ratio)) = (columns(&ours, &theirs, 0), columns(&ours, &theirs, 1));
        table.row([name.to_owned(), rate, rate_ratio, cpu, cpu_ratio]);
    }
    table.print(&format!("Small requests, {CONNECTIONS} connections"));
}

/// Blobs, thrown away by the client in the kernel.
fn blobs(larder: &Server, nginx: Option<&Server>, held: &Held) {
    let mut table = Table::new(&["blob", "GB/s", "to nginx", "CPU s per GB", "to nginx"]);
    let [_, _, small, large, huge] = paths(held);
    let total = if support::quick() { 512 * MIB } else { 1 << 30 };
    for (name, path, size, connections) in [
        ("64 KiB, 8 connections", &small, 64 * KIB, 8),
        ("4 MiB, 8 connections", &large, 4 * MIB, 8),
        ("4 MiB, 64 connections", &large, 4 * MIB, 64),
        ("64 MiB, 8 connections", &huge, 64 * MIB, 8),
    ] {
        let (ours, theirs) = interleave(larder, nginx, support::rounds(5), |server| {
            let before = server.cpu();
            let wall = client::pull(server.address, path, connections, total / size);
            [total as f64 / GB / wall.as_secs_f64(), (server.cpu() - before) / (total as f64 / GB)]
        });
        let ((rate, rate_ratio), (cpu, cpu_ratio)) = (columns(&ours, &theirs, 0), columns(&ours, &theirs, 1));
        table.row([name.to_owned(), rate, rate_ratio, cpu, cpu_ratio]);
    }
    table.print("Blobs, discarded by the client in the kernel");
}

/// One client that asks for one thing after the other.
fn latency(larder: &Server, nginx: Option<&Server>, held: &Held) {
    let mut table = Table::new(&["one keep-alive connection", "p50 in ms", "to nginx"]);
    let [by_digest, by_tag, small, ..] = paths(held);
    for (name, method, path) in [
        ("manifest by digest, GET", "GET", &by_digest),
        ("manifest by fresh tag, GET", "GET", &by_tag),
        ("blob, HEAD", "HEAD", &small),
        ("blob of 64 KiB, GET", "GET", &small),
    ] {
        let (ours, theirs) = interleave(larder, nginx, support::rounds(5), |server| {
            [client::p50(server.address, method, path, 500).as_secs_f64() * 1000.0]
        });
        let (value, ratio) = columns(&ours, &theirs, 0);
        table.row([name.to_owned(), value, ratio]);
    }
    table.print("Latency");
}

/// The same requests in repositories of different sizes, one right after the other.
fn growth(larder: &Server, held: &Held) {
    let mut table = Table::new(&["CPU ms per 1,000", "1 manifest", "1,000", "the most", "most to 1"]);
    let requests = if support::quick() { 500 } else { 20_000 };
    for kind in ["tag", "digest", "blob of 64 KiB"] {
        let mut figures = vec![Vec::new(); held.repositories.len()];
        for _ in 0..support::rounds(5) {
            for (at, (of, count)) in held.repositories.iter().enumerate() {
                let path = match kind {
                    "tag" => manifest(of, format!("v{}", count / 2)),
                    "digest" => manifest(of, held.manifest),
                    _ => blob(of, &held.small),
                };
                let before = larder.cpu();
                client::pull(larder.address, &path, CONNECTIONS, requests);
                figures[at].push((larder.cpu() - before) / requests as f64 * 1e6);
            }
        }
        let of = |at: usize| format!("{:.1}", median(&figures[at]).value);
        let ratios: Vec<f64> = figures[2].iter().zip(&figures[0]).map(|(most, one)| most / one).collect();
        table.row([kind.to_owned(), of(0), of(1), of(2), median(&ratios).to_string()]);
    }
    let most = held.repositories[2].1;
    table.print(&format!("In repositories of 1, 1,000 and {most} manifests, each with a tag"));
}

/// Memory that connections hold.
fn memory(larder: &Server, held: &Held) {
    let [by_digest, _, _, _, huge] = paths(held);
    let mut table = Table::new(&["clients", "KiB each"]);
    let mut row = |name: &str, count: usize, mut begin: Box<dyn FnMut(&mut Connection)>| {
        let before = larder.memory();
        let mut open: Vec<Connection> = (0..count).map(|_| Connection::open(larder.address)).collect();
        open.iter_mut().for_each(&mut begin);
        std::thread::sleep(Duration::from_millis(200));
        let each = (larder.memory() - before) / count as f64 / 1024.0;
        table.row([format!("{count} {name}"), format!("{each:.1}")]);
    };
    let path = by_digest.clone();
    row("idle connections after a request", 1000, Box::new(move |one| drop(one.get(&path))));
    row("clients of one warm blob that take nothing of it", 500, Box::new(move |one| one.send("GET", &huge)));
    table.print("Memory that is no file's");
}

/// A held tag past its freshness while its upstream is away in different ways, and the first pull when it is back.
fn outage() {
    let folder = tempfile::tempdir().unwrap();
    let mut held = None;
    let hosts = ["fresh", "refused", "silent", "failing", "limited"];
    seed::fill(folder.path(), Durability::Relaxed, async |store| {
        for host in hosts {
            let of = seed::key(&format!("{host}.test/app"));
            let layer = seed::blob(store, &of, support::bytes(1, 64 * KIB)).await;
            held = Some(seed::images(store, &of, &layer, 64 * KIB, 1).await[0]);
        }
    });
    let gone = free_address();
    let [fresh, silent, failing, limited] = [(); 4].map(|()| Origin::start(None));
    silent.set(Mode::Silent);
    failing.set(Mode::Failing(503));
    limited.set(Mode::Failing(429));
    let endpoint = |url: String| serde_json::json!({ "endpoints": [url] });
    let config = serde_json::json!({
        "upstreams": {
            "fresh.test": endpoint(fresh.url()), "refused.test": endpoint(format!("http://{gone}")),
            "silent.test": endpoint(silent.url()), "failing.test": endpoint(failing.url()),
            "limited.test": endpoint(limited.url()),
        },
        "freshness": [
            { "match": "fresh.test/**", "fresh_for": "1d" },
            { "match": "**", "fresh_for": "0s", "stale_while_revalidate": "0s" },
        ],
    });
    let larder = Server::larder(folder.path(), &config);
    let path = |host: &str| manifest(&format!("{host}.test/app"), "v0");
    let usual = client::p50(larder.address, "GET", &path("fresh"), 500);
    let mut table = Table::new(&["the upstream", "first answer in ms", "next ones, p50", "to a fresh tag's"]);
    for (host, name) in
        hosts.into_iter().zip(["", "refuses connections", "is silent", "answers 503", "answers 429"]).skip(1)
    {
        let first = Connection::open(larder.address).get(&path(host));
        assert!(first.status == 200 && first.head.contains("stale"), "{host}: {}", first.head);
        let next = client::p50(larder.address, "GET", &path(host), 200);
        table.row([
            name.to_owned(),
            format!("{:.1}", first.whole.as_secs_f64() * 1000.0),
            format!("{:.3}", next.as_secs_f64() * 1000.0),
            format!("{:.2}", next.as_secs_f64() / usual.as_secs_f64()),
        ]);
    }
    table
        .print(&format!("A held tag while its upstream is away (a fresh one: {:.3} ms)", usual.as_secs_f64() * 1000.0));
    back(&larder, gone, &fresh);
}

/// The first pull of something that is not held, when the upstream that was away is there again.
fn back(larder: &Server, at: std::net::SocketAddr, fresh: &Origin) {
    let back = Origin::start_at(at, None);
    let mut wait = [0.0; 2];
    for (number, (host, origin)) in [("fresh", fresh), ("refused", &back)].into_iter().enumerate() {
        let digest = origin.add_blob(std::sync::Arc::new(support::bytes(9 + number as u64, MIB)));
        // As the first answer after the circuit opened: whoever asks for what is not held is the probe, once a second.
        std::thread::sleep(Duration::from_secs(1));
        let answer = Connection::open(larder.address).get(&blob(&format!("{host}.test/app"), &digest));
        assert_eq!(answer.status, 200, "{}", answer.head);
        wait[number] = answer.whole.as_secs_f64() * 1000.0;
    }
    println!("\nThe first pull of 1 MiB after it is back: {:.1} ms, usually {:.1} ms", wait[1], wait[0]);
}
