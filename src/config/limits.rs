//! Bounds of what clients and background work may take. Every queue, body, map and wait has one.

use std::time::Duration;

use super::table::Table;
use super::value::Value;

/// The bounds that belong to no single upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open client connections of the registry listeners together, at most half of the files that the process may have
    /// open; beyond it a new one is answered 503 and closed.
    pub connections: u32,
    /// Requests answered at the same time; beyond it 503 with `Retry-After`.
    pub requests: u32,
    /// HTTP/2 streams of one connection.
    pub streams: u32,
    /// From accepting a connection to its first byte, and for the TLS handshake.
    pub first_byte: Duration,
    /// From a request's first byte to the end of its headers.
    pub headers: Duration,
    /// How long a connection may be idle between requests.
    pub idle: Duration,
    /// How long a client may take no byte of an answer, or send none of a body.
    pub stall: Duration,
    /// Bytes of a request's headers.
    pub header_bytes: u64,
    /// Bytes of a request's body to the API and of a pushed manifest.
    pub body_bytes: u64,
    /// Bytes of what a forge tells at `/hooks/<name>`.
    pub hook_bytes: u64,
    /// Deliveries of forges that are remembered, so that one that comes again is not taken twice.
    pub deliveries: u32,
    /// The largest blob that a client may push.
    pub blob_bytes: u64,
    /// How long an upload may be left before it ends and its bytes go.
    pub upload_idle: Duration,
    /// How long a client may send no byte of an upload before its request ends; the upload stays where it came to.
    pub upload_stall: Duration,
    /// Names on one page of tags or repositories.
    pub page: u32,
    /// Transfers from upstreams at the same time, all upstreams together.
    pub fills: u32,
    /// Transfers that wait for their turn; beyond it 503 with `Retry-After`.
    pub fills_waiting: u32,
    /// Blobs of an image whose transfer begins when its manifest is served, ahead of the client's request.
    pub prefetch: u32,
    /// How long a client waits for a blob of up to 64 KiB to be verified before its status line.
    pub verify_wait: Duration,
    /// How long an upstream's 404 is believed.
    pub absent: Duration,
    /// How many such answers are kept.
    pub absent_entries: u32,
    /// Popular tags that are revalidated before they go stale; 0 turns that off.
    pub popular_tags: u32,
    /// Events that wait for whoever is told of them; beyond it the oldest are lost.
    pub events: u32,
    /// Verified passwords and visibility decisions kept in memory.
    pub decisions: u32,
    /// How long a verified password is remembered.
    pub password_memory: Duration,
    /// Password checks at the same time; each takes a core for a while.
    pub password_checks: u32,
    /// How long a token of `/token` is valid.
    pub token_life: Duration,
    /// References in one request to refresh or evict.
    pub references: u32,
    /// Runs that live at the same time; beyond it a new one is 429 with `Retry-After`.
    pub runs: u32,
    /// Tags that one run sees; beyond it a further one is 429 with `Retry-After`.
    pub run_tags: u32,
    /// Tags and manifests that one plan of retention looks at; beyond it there is none.
    pub plan_entries: u32,
    /// Bytes of a plan that is to be carried out.
    pub plan_bytes: u64,
    /// Cells of one matrix that is asked about; its rows are no more.
    pub cells: u32,
    /// Matrices that are answered at the same time; more wait.
    pub matrices: u32,
    /// Cells that are looked for at the same time, of all matrices together.
    pub looks: u32,
    /// Cells that are leased at the same time; beyond it 429 with `Retry-After`.
    pub leases: u32,
    /// The longest lease of a cell.
    pub lease: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            requests: 2_048,
            streams: 128,
            first_byte: Duration::from_secs(10),
            headers: Duration::from_secs(10),
            idle: Duration::from_secs(90),
            stall: Duration::from_mins(1),
            header_bytes: 32 << 10,
            body_bytes: 4 << 20,
            hook_bytes: 5 << 20,
            deliveries: 10_000,
            blob_bytes: 100 << 30,
            upload_idle: Duration::from_hours(1),
            upload_stall: Duration::from_mins(5),
            page: 1_000,
            fills: 256,
            fills_waiting: 4_096,
            prefetch: 64,
            verify_wait: Duration::from_secs(5),
            absent: Duration::from_secs(10),
            absent_entries: 10_000,
            popular_tags: 1_000,
            events: 1_000,
            decisions: 10_000,
            password_memory: Duration::from_mins(5),
            password_checks: 2,
            token_life: Duration::from_mins(5),
            references: 1_000,
            runs: 20_000,
            run_tags: 1_000,
            plan_entries: 2_000_000,
            plan_bytes: 64 << 20,
            cells: 20_000,
            matrices: 4,
            looks: 32,
            leases: 100_000,
            lease: Duration::from_hours(24),
        }
    }
}

impl Limits {
    pub(super) fn read(&mut self, table: &mut Table<'_>) {
        table.set("connections", &mut self.connections, Value::at_least_one);
        table.set("requests", &mut self.requests, Value::at_least_one);
        table.set("streams", &mut self.streams, Value::at_least_one);
        table.set("first_byte", &mut self.first_byte, positive);
        table.set("headers", &mut self.headers, positive);
        table.set("idle", &mut self.idle, positive);
        table.set("stall", &mut self.stall, positive);
        table.set("header_bytes", &mut self.header_bytes, |value| at_least(value, 8 << 10, "8KiB"));
        table.set("body_bytes", &mut self.body_bytes, |value| at_least(value, 64 << 10, "64KiB"));
        table.set("hook_bytes", &mut self.hook_bytes, |value| at_least(value, 64 << 10, "64KiB"));
        table.set("deliveries", &mut self.deliveries, Value::at_least_one);
        table.set("blob_bytes", &mut self.blob_bytes, |value| at_least(value, 1 << 20, "1MiB"));
        table.set("upload_idle", &mut self.upload_idle, positive);
        table.set("upload_stall", &mut self.upload_stall, positive);
        table.set("page", &mut self.page, Value::at_least_one);
        table.set("fills", &mut self.fills, Value::at_least_one);
        table.set("fills_waiting", &mut self.fills_waiting, Value::count);
        table.set("prefetch", &mut self.prefetch, Value::count);
        table.set("verify_wait", &mut self.verify_wait, Value::duration);
        table.set("absent", &mut self.absent, |value| at_most(value, Duration::from_secs(10), "10s"));
        table.set("absent_entries", &mut self.absent_entries, Value::count);
        table.set("popular_tags", &mut self.popular_tags, Value::count);
        table.set("events", &mut self.events, Value::at_least_one);
        table.set("decisions", &mut self.decisions, Value::at_least_one);
        table.set("password_memory", &mut self.password_memory, Value::duration);
        table.set("password_checks", &mut self.password_checks, Value::at_least_one);
        table.set("token_life", &mut self.token_life, positive);
        table.set("references", &mut self.references, Value::at_least_one);
        table.set("runs", &mut self.runs, Value::at_least_one);
        table.set("run_tags", &mut self.run_tags, Value::at_least_one);
        table.set("plan_entries", &mut self.plan_entries, Value::at_least_one);
        table.set("plan_bytes", &mut self.plan_bytes, |value| at_least(value, 64 << 10, "64KiB"));
        table.set("cells", &mut self.cells, Value::at_least_one);
        table.set("matrices", &mut self.matrices, Value::at_least_one);
        table.set("looks", &mut self.looks, Value::at_least_one);
        table.set("leases", &mut self.leases, Value::at_least_one);
        table.set("lease", &mut self.lease, positive);
    }
}

/// A duration that must not be zero.
pub(super) fn positive(value: &Value<'_>) -> Option<Duration> {
    let duration = value.duration()?;
    if duration.is_zero() {
        value.problem("must be longer than 0s");
        return None;
    }
    Some(duration)
}

/// A size with a lower bound.
pub(super) fn at_least(value: &Value<'_>, least: u64, shown: &str) -> Option<u64> {
    let size = value.size()?;
    if size < least {
        value.problem(format!("must be at least {shown}"));
        return None;
    }
    Some(size)
}

fn at_most(value: &Value<'_>, most: Duration, shown: &str) -> Option<Duration> {
    let duration = value.duration()?;
    if duration > most {
        value.problem(format!("must be at most {shown}: a tag that was just pushed would look missing"));
        return None;
    }
    Some(duration)
}
