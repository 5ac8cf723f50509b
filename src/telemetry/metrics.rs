//! Every metric, in one list (`docs/metrics.md` describes them for people).
//!
//! A method a fact, named after what happened. Labels are words of the program or hosts of the configuration, never
//! what a client sent: their number is bounded.

mod labels;

use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use labels::CacheLabel;
use labels::ClassLabel;
use labels::ForgeLabel;
use labels::ForgeRequestLabels;
use labels::HookLabels;
use labels::NotificationLabels;
use labels::OutcomeLabel;
use labels::PrunedLabels;
use labels::ReasonLabel;
use labels::RequestLabels;
use labels::StateLabel;
use labels::Status;
use labels::UpstreamLabel;
use labels::UpstreamPartLabels;
use labels::UpstreamRequestLabels;

/// Seconds from a request to its first byte: from a hit in memory to an upstream's time-out.
const FIRST_BYTE_BUCKETS: [f64; 13] =
    [0.000_25, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Seconds of a whole transfer from an upstream.
const FILL_BUCKETS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0];

/// Sums of requests, for the status report: the metrics themselves can't be read back by label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// All answered requests.
    pub total: u64,
    /// Answered from what is held.
    pub hits: u64,
    /// Answered by asking an upstream.
    pub misses: u64,
    /// Answered with a copy past its time, because the upstream could not be asked.
    pub stale: u64,
    /// Answered with 5xx or 429.
    pub errors: u64,
    /// Bytes of bodies sent.
    pub sent_bytes: u64,
    /// Manifests served without a pull of the upstream's.
    pub saved_pulls: u64,
}

#[derive(Debug, Default)]
struct Sums {
    total: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    stale: AtomicU64,
    errors: AtomicU64,
    sent_bytes: AtomicU64,
    fills: AtomicI64,
}

/// All metrics of one server. Shared as `Arc<Metrics>`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    sums: Sums,
    requests: Family<RequestLabels, Counter>,
    sent: Family<CacheLabel, Counter>,
    upstream_requests: Family<UpstreamRequestLabels, Counter>,
    upstream_received: Family<UpstreamLabel, Counter>,
    upstream_budget: Family<UpstreamLabel, Gauge>,
    upstream_budget_limit: Family<UpstreamLabel, Gauge>,
    upstream_up: Family<UpstreamPartLabels, Gauge>,
    fills: Family<StateLabel, Gauge>,
    uploads: Gauge,
    uploaded: Counter,
    fill_seconds: Histogram,
    first_byte: Histogram,
    store_bytes: Family<ClassLabel, Gauge>,
    store_free: Gauge,
    evicted: Counter,
    collected: Counter,
    collections_failed: Counter,
    pruned: Family<PrunedLabels, Counter>,
    prune_runs: Family<OutcomeLabel, Counter>,
    saved_pulls: Counter,
    history_bytes: Gauge,
    history_dropped: Counter,
    scrub_failures: Counter,
    verify_failures: Counter,
    denied: Family<ReasonLabel, Counter>,
    connections: Gauge,
    connections_refused: Family<ReasonLabel, Counter>,
    requests_running: Gauge,
    runs: Gauge,
    run_pins: Gauge,
    runs_refused: Family<ReasonLabel, Counter>,
    missing_cells: Family<StateLabel, Counter>,
    missing_leases: Gauge,
    forge_requests: Family<ForgeRequestLabels, Counter>,
    forge_budget: Family<ForgeLabel, Gauge>,
    hooks: Family<HookLabels, Counter>,
    notifications: Family<NotificationLabels, Counter>,
    events_lost: Counter,
    panics: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let new = Self {
            registry: Registry::with_prefix("larder"),
            sums: Sums::default(),
            requests: Family::default(),
            sent: Family::default(),
            upstream_requests: Family::default(),
            upstream_received: Family::default(),
            upstream_budget: Family::default(),
            upstream_budget_limit: Family::default(),
            upstream_up: Family::default(),
            fills: Family::default(),
            uploads: Gauge::default(),
            uploaded: Counter::default(),
            fill_seconds: Histogram::new(FILL_BUCKETS),
            first_byte: Histogram::new(FIRST_BYTE_BUCKETS),
            store_bytes: Family::default(),
            store_free: Gauge::default(),
            evicted: Counter::default(),
            collected: Counter::default(),
            collections_failed: Counter::default(),
            pruned: Family::default(),
            prune_runs: Family::default(),
            saved_pulls: Counter::default(),
            history_bytes: Gauge::default(),
            history_dropped: Counter::default(),
            scrub_failures: Counter::default(),
            verify_failures: Counter::default(),
            denied: Family::default(),
            connections: Gauge::default(),
            connections_refused: Family::default(),
            requests_running: Gauge::default(),
            runs: Gauge::default(),
            run_pins: Gauge::default(),
            runs_refused: Family::default(),
            missing_cells: Family::default(),
            missing_leases: Gauge::default(),
            forge_requests: Family::default(),
            forge_budget: Family::default(),
            hooks: Family::default(),
            notifications: Family::default(),
            events_lost: Counter::default(),
            panics: Counter::default(),
        };
        new.registered()
    }

    /// The one list of names. Counters get `_total` appended when they are written.
    fn registered(mut self) -> Self {
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        let list = &mut self.registry;
        list.register("build", "The running version", build);
        list.register("requests", "Requests answered", self.requests.clone());
        list.register("sent_bytes", "Bytes of bodies sent to clients", self.sent.clone());
        list.register("upstream_requests", "Requests to upstreams", self.upstream_requests.clone());
        list.register("upstream_received_bytes", "Bytes of bodies from upstreams", self.upstream_received.clone());
        list.register(
            "upstream_budget_remaining",
            "Pulls that the upstream still allows, as it says itself",
            self.upstream_budget.clone(),
        );
        list.register(
            "upstream_budget_limit",
            "Pulls that the upstream allows in all, as it says itself",
            self.upstream_budget_limit.clone(),
        );
        list.register("upstream_up", "Whether a part of the upstream answers", self.upstream_up.clone());
        list.register("uploads", "Uploads of blobs that are open", self.uploads.clone());
        list.register("uploaded_bytes", "Bytes of blobs that clients sent", self.uploaded.clone());
        list.register("fills", "Transfers from upstreams under way or waiting", self.fills.clone());
        list.register("fill_seconds", "Duration of transfers from upstreams", self.fill_seconds.clone());
        list.register("first_byte_seconds", "From a request to the headers of its answer", self.first_byte.clone());
        list.register("store_bytes", "Bytes stored", self.store_bytes.clone());
        list.register("store_free_bytes", "Bytes free on the store's file system", self.store_free.clone());
        list.register("evicted_bytes", "Bytes taken out to stay within the size", self.evicted.clone());
        list.register("gc_freed_bytes", "Bytes collected because nothing named them", self.collected.clone());
        list.register(
            "pruned_tags",
            "Tags and untagged manifests that policies let go, by what became of each",
            self.pruned.clone(),
        );
        list.register("prune_runs", "Scheduled runs of retention, by what they came to", self.prune_runs.clone());
        list.register("gc_failures", "Collections of everything that broke off", self.collections_failed.clone());
        list.register("saved_pulls", "Manifests served without a pull of the upstream", self.saved_pulls.clone());
        list.register("history_bytes", "Bytes of the history of pulls", self.history_bytes.clone());
        list.register("history_dropped", "Uses that were not written down", self.history_dropped.clone());
        list.register("scrub_failures", "Stored blobs found damaged", self.scrub_failures.clone());
        list.register(
            "verify_failures",
            "Transfers whose bytes had another digest or size",
            self.verify_failures.clone(),
        );
        list.register("denied", "Requests refused for want of a right", self.denied.clone());
        list.register("connections", "Open connections of clients", self.connections.clone());
        list.register("connections_refused", "Connections not served", self.connections_refused.clone());
        list.register("requests_running", "Requests being answered", self.requests_running.clone());
        list.register("runs", "Runs of pipelines that live", self.runs.clone());
        list.register("run_pins", "Tags that those runs saw", self.run_pins.clone());
        list.register("runs_refused", "Answers refused because a run had no room", self.runs_refused.clone());
        list.register("missing_cells", "Cells of matrices that were asked about", self.missing_cells.clone());
        list.register("missing_leases", "Cells that somebody has leased to build them", self.missing_leases.clone());
        list.register("forge_requests", "Requests to the APIs of forges", self.forge_requests.clone());
        list.register(
            "forge_budget_remaining",
            "Requests that the forge still allows, as it says itself",
            self.forge_budget.clone(),
        );
        list.register("hooks", "Deliveries of webhooks", self.hooks.clone());
        list.register("notifications", "Events told to whoever runs the server", self.notifications.clone());
        list.register("events_lost", "Events that were not told, because too many came", self.events_lost.clone());
        list.register("panics", "Requests that failed by a fault of the program", self.panics.clone());
        self
    }

    /// A request was answered. `cache` is the word of `Cache-Status`: `hit`, `miss`, `stale`, …, or `none`.
    pub fn request(&self, route: &'static str, method: &'static str, status: u16, cache: &'static str) {
        self.requests.get_or_create(&RequestLabels { route, method, status: Status(status), cache }).inc();
        let sums = &self.sums;
        sums.total.fetch_add(1, Ordering::Relaxed);
        match cache {
            "hit" | "revalidated" => sums.hits.fetch_add(1, Ordering::Relaxed),
            "miss" | "collapsed" => sums.misses.fetch_add(1, Ordering::Relaxed),
            "stale" => sums.stale.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        if status >= 500 || status == 429 {
            sums.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Bytes of a body went to a client.
    pub fn sent(&self, cache: &'static str, bytes: u64) {
        self.sent.get_or_create(&CacheLabel { cache }).inc_by(bytes);
        self.sums.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// An answer's headers were ready after so many seconds.
    pub fn first_byte(&self, seconds: f64) {
        self.first_byte.observe(seconds);
    }

    /// An upstream answered with `status`, or not at all (0). `kind`: `manifest`, `blob`, `token`, `tags`,
    /// `referrers`, `probe`.
    pub fn upstream_request(&self, upstream: &str, kind: &'static str, status: u16) {
        let labels = UpstreamRequestLabels { upstream: upstream.to_owned(), kind, status: Status(status) };
        self.upstream_requests.get_or_create(&labels).inc();
    }

    /// Bytes of a body came from an upstream.
    pub fn upstream_received(&self, upstream: &str, bytes: u64) {
        self.upstream_received.get_or_create(&UpstreamLabel { upstream: upstream.to_owned() }).inc_by(bytes);
    }

    /// A part of an upstream (`registry`, `token`, `cdn`) answers, or does not.
    pub fn upstream_up(&self, upstream: &str, part: &'static str, up: bool) {
        self.upstream_up.get_or_create(&UpstreamPartLabels { upstream: upstream.to_owned(), part }).set(i64::from(up));
    }

    /// What an upstream says is left of its budget.
    pub fn budget(&self, upstream: &str, remaining: u64) {
        self.upstream_budget.get_or_create(&UpstreamLabel { upstream: upstream.to_owned() }).set(signed(remaining));
    }

    /// What an upstream says its budget is.
    pub fn budget_limit(&self, upstream: &str, limit: u64) {
        self.upstream_budget_limit.get_or_create(&UpstreamLabel { upstream: upstream.to_owned() }).set(signed(limit));
    }

    /// So many uploads are open.
    pub fn uploads_open(&self, count: usize) {
        self.uploads.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Bytes of an upload came.
    pub fn uploaded(&self, bytes: u64) {
        self.uploaded.inc_by(bytes);
    }

    /// Transfers entered (`+1`) or left (`-1`) a state: `running`, `waiting`.
    pub fn fills(&self, state: &'static str, delta: i64) {
        self.fills.get_or_create(&StateLabel { state }).inc_by(delta);
        self.sums.fills.fetch_add(delta, Ordering::Relaxed);
    }

    /// A transfer ended after so many seconds.
    pub fn fill_seconds(&self, seconds: f64) {
        self.fill_seconds.observe(seconds);
    }

    /// How many bytes of a class are stored: `proxied`, `hosted`, `spool`, `index`.
    pub fn store_bytes(&self, class: &'static str, bytes: u64) {
        self.store_bytes.get_or_create(&ClassLabel { class }).set(signed(bytes));
    }

    /// How many bytes the store's file system has left.
    pub fn store_free(&self, bytes: u64) {
        self.store_free.set(signed(bytes));
    }

    /// Bytes were taken out to stay within the size.
    pub fn evicted(&self, bytes: u64) {
        self.evicted.inc_by(bytes);
    }

    /// Bytes were collected because nothing named them.
    pub fn collected(&self, bytes: u64) {
        self.collected.inc_by(bytes);
    }

    /// A collection of everything broke off.
    pub fn collection_failed(&self) {
        self.collections_failed.inc();
    }

    /// A manifest was served without a pull of the upstream's.
    pub fn saved_pull(&self) {
        self.saved_pulls.inc();
    }

    /// How many bytes the history of pulls has.
    pub fn history_bytes(&self, bytes: u64) {
        self.history_bytes.set(signed(bytes));
    }

    /// Uses of images found no room in the history.
    pub fn history_dropped(&self, uses: u64) {
        self.history_dropped.inc_by(uses);
    }

    /// A stored blob was found damaged.
    pub fn scrub_failure(&self) {
        self.scrub_failures.inc();
    }

    /// An upstream's bytes had another digest or size than they should.
    pub fn verify_failure(&self) {
        self.verify_failures.inc();
    }

    /// A request was refused: `unauthenticated`, `hidden`, `denied`, `busy`, `unavailable`.
    pub fn denied(&self, reason: &'static str) {
        self.denied.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Connections were opened (`+1`) or closed (`-1`).
    pub fn connections(&self, delta: i64) {
        self.connections.inc_by(delta);
    }

    /// A connection was not served: `limit`, `tls`, `first_byte`, `malformed`.
    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Requests began (`+1`) or ended (`-1`).
    pub fn requests_running(&self, delta: i64) {
        self.requests_running.inc_by(delta);
    }

    /// Runs began (`+1`) or ended (`-1`).
    pub fn runs(&self, delta: i64) {
        self.runs.inc_by(delta);
    }

    /// Runs saw more tags, or fewer.
    pub fn run_pins(&self, delta: i64) {
        self.run_pins.inc_by(delta);
    }

    /// So many cells of a matrix were found in this state: `here`, `upstream`, `missing`, `leased` or `failed`.
    pub fn missing_cells(&self, state: &'static str, count: u64) {
        self.missing_cells.get_or_create(&StateLabel { state }).inc_by(count);
    }

    /// So many cells are leased.
    pub fn missing_leases(&self, count: i64) {
        self.missing_leases.set(count);
    }

    /// There was no room for another run (`runs`), or for another tag in one (`tags`).
    pub fn run_refused(&self, reason: &'static str) {
        self.runs_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A forge answered with `status`, or not at all (0). `kind`: `branches`, `pulls`.
    pub fn forge_request(&self, forge: &str, kind: &'static str, status: u16) {
        let labels = ForgeRequestLabels { forge: forge.to_owned(), kind, status: Status(status) };
        self.forge_requests.get_or_create(&labels).inc();
    }

    /// What a forge says is left of the requests that it allows.
    pub fn forge_budget(&self, forge: &str, remaining: u64) {
        self.forge_budget.get_or_create(&ForgeLabel { forge: forge.to_owned() }).set(signed(remaining));
    }

    /// A webhook of a configured forge came: `news`, `known`, `repeated`, `ping`, `ignored`, `malformed`, `refused`.
    pub fn hook(&self, hook: &str, outcome: &'static str) {
        self.hooks.get_or_create(&HookLabels { hook: hook.to_owned(), outcome }).inc();
    }

    /// An event was `sent` to a target of `notify`, tried `again`, `repeated` (told a moment ago), `dropped` (too many
    /// waited), or `failed`.
    pub fn notification(&self, event: &'static str, outcome: &'static str) {
        self.notifications.get_or_create(&NotificationLabels { event, outcome }).inc();
    }

    /// So many events were not told, because too many came.
    pub fn events_lost(&self, count: u64) {
        self.events_lost.inc_by(count);
    }

    /// A request failed by a fault of the program.
    pub fn panic(&self) {
        self.panics.inc();
    }

    /// Something that a policy of the configuration let go came to this end.
    pub fn pruned(&self, policy: &str, outcome: &'static str) {
        self.pruned.get_or_create(&PrunedLabels { policy: policy.to_owned(), outcome }).inc();
    }

    /// A scheduled run of retention came to this end: `reported`, `applied`, `refused`, `failed`.
    pub fn prune_run(&self, outcome: &'static str) {
        self.prune_runs.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Sums of requests since the start.
    pub fn requests_so_far(&self) -> Requests {
        let read = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        Requests {
            total: read(&self.sums.total),
            hits: read(&self.sums.hits),
            misses: read(&self.sums.misses),
            stale: read(&self.sums.stale),
            errors: read(&self.sums.errors),
            sent_bytes: read(&self.sums.sent_bytes),
            saved_pulls: self.saved_pulls.get(),
        }
    }

    /// Transfers from upstreams under way or waiting now.
    pub fn fills_now(&self) -> u64 {
        u64::try_from(self.sums.fills.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// The metrics as text of `OpenMetrics` (`application/openmetrics-text; version=1.0.0; charset=utf-8`).
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(8 << 10);
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

/// Gauges are signed; no count of bytes comes near the end of their range.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_surface_is_written_under_its_name() {
        let metrics = Metrics::new();
        metrics.request("manifest", "GET", 200, "hit");
        metrics.sent("hit", 7);
        metrics.upstream_request("docker.io", "manifest", 0);
        metrics.upstream_received("docker.io", 5);
        metrics.budget("docker.io", 99);
        metrics.upstream_up("docker.io", "registry", true);
        metrics.fills("running", 1);
        metrics.first_byte(0.001);
        metrics.store_bytes("proxied", 1 << 40);
        metrics.denied("anonymous");
        metrics.pruned("branches", "deleted");
        let text = metrics.encode();
        for line in [
            r#"larder_requests_total{route="manifest",method="GET",status="200",cache="hit"} 1"#,
            r#"larder_sent_bytes_total{cache="hit"} 7"#,
            r#"larder_upstream_requests_total{upstream="docker.io",kind="manifest",status="none"} 1"#,
            r#"larder_upstream_received_bytes_total{upstream="docker.io"} 5"#,
            r#"larder_upstream_budget_remaining{upstream="docker.io"} 99"#,
            r#"larder_upstream_up{upstream="docker.io",part="registry"} 1"#,
            r#"larder_fills{state="running"} 1"#,
            "larder_first_byte_seconds_count 1",
            r#"larder_store_bytes{class="proxied"} 1099511627776"#,
            "larder_evicted_bytes_total 0",
            "larder_gc_freed_bytes_total 0",
            "larder_saved_pulls_total 0",
            "larder_scrub_failures_total 0",
            r#"larder_denied_total{reason="anonymous"} 1"#,
            r#"larder_pruned_tags_total{policy="branches",outcome="deleted"} 1"#,
            concat!(r#"larder_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("# TYPE").count(), text.matches("# HELP").count());
    }

    #[test]
    fn sums_follow_the_words_of_the_cache() {
        let metrics = Metrics::new();
        for (status, cache) in [(200, "hit"), (200, "miss"), (200, "stale"), (503, "none"), (404, "none")] {
            metrics.request("blob", "GET", status, cache);
        }
        let sums = metrics.requests_so_far();
        assert_eq!((sums.total, sums.hits, sums.misses, sums.stale, sums.errors), (5, 1, 1, 1, 1));
    }
}
