//! Where bytes are kept, how much of them, and how they are looked after.

use std::path::PathBuf;
use std::time::Duration;

use super::limits::at_least;
use super::reading::Environment;
use super::size;
use super::table::Table;
use super::value::Value;

/// The folder and its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The folder; it is made when it is missing.
    pub path: PathBuf,
    /// Bytes of what came from upstreams; hosted content is neither counted nor evicted for size.
    pub max_size: u64,
    /// The share of `max_size`, in percent, above which eviction starts.
    pub high_watermark: u8,
    /// The share of `max_size`, in percent, at which eviction stops.
    pub low_watermark: u8,
    /// What a commit waits for.
    pub durability: Durability,
    /// Bytes of the file system that are never filled, at most 5 % of it: the index and deletes need room.
    pub reserve_free: u64,
    /// Bytes of manifests and records kept in memory.
    pub memory: u64,
    /// Changes that may wait for the index's writer.
    pub queue: u32,
    /// Objects whose exact time of use is kept in memory.
    pub uses: u32,
}

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// For the disk: nothing acknowledged is lost to a power cut.
    Strict,
    /// For the kernel: survives the process, not a power cut, after which the index is rebuilt.
    Relaxed,
}

impl Store {
    /// The defaults; the folder is the service manager's (`$STATE_DIRECTORY`) where there is one.
    pub(super) fn defaults(environment: Environment<'_>) -> Self {
        let state = environment("STATE_DIRECTORY").filter(|folder| !folder.is_empty());
        // systemd separates several folders by colons; the first is ours.
        let state = state.and_then(|folders| folders.split(':').next().map(PathBuf::from));
        Self {
            path: state.unwrap_or_else(|| PathBuf::from("./larder-data")),
            max_size: 50 << 30,
            high_watermark: 95,
            low_watermark: 90,
            durability: Durability::Strict,
            reserve_free: 256 << 20,
            memory: 64 << 20,
            queue: 1024,
            uses: 100_000,
        }
    }

    pub(super) fn read(&mut self, table: &mut Table<'_>) {
        table.later(&["url"]);
        table.set("path", &mut self.path, Value::path);
        table.set("max_size", &mut self.max_size, |value| at_least(value, 1 << 20, "1MiB"));
        table.set("high_watermark", &mut self.high_watermark, |value| value.parsed(size::percent));
        table.set("low_watermark", &mut self.low_watermark, |value| value.parsed(size::percent));
        table.set("durability", &mut self.durability, |value| {
            value.word(&[("strict", Durability::Strict), ("relaxed", Durability::Relaxed)])
        });
        table.set("reserve_free", &mut self.reserve_free, Value::size);
        table.set("memory", &mut self.memory, |value| at_least(value, 1 << 20, "1MiB"));
        table.set("queue", &mut self.queue, Value::at_least_one);
        table.set("uses", &mut self.uses, Value::at_least_one);
        if self.high_watermark == 0 || self.low_watermark >= self.high_watermark {
            table.value().problem(format!(
                "low_watermark ({}%) must be below high_watermark ({}%)",
                self.low_watermark, self.high_watermark
            ));
        }
    }
}

/// How what nothing names any more is collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gc {
    /// How often everything is looked at; zero: only when asked. What loses its last tag is collected at once all the same.
    pub every: Duration,
    /// How long an answer that lets a client skip an upload protects the blob.
    pub lease: Duration,
}

impl Default for Gc {
    fn default() -> Self {
        Self { every: Duration::from_hours(1), lease: Duration::from_hours(1) }
    }
}

impl Gc {
    pub(super) fn read(&mut self, table: &mut Table<'_>) {
        table.set("every", &mut self.every, Value::duration);
        table.set("lease", &mut self.lease, Value::duration);
    }
}

/// How what is stored is hashed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrub {
    /// How long one pass over the store takes at most, and how often it begins; zero: only when asked.
    pub every: Duration,
    /// Bytes a second.
    pub rate: u64,
}

impl Default for Scrub {
    fn default() -> Self {
        Self { every: Duration::from_hours(720), rate: 50 << 20 }
    }
}

impl Scrub {
    pub(super) fn read(&mut self, table: &mut Table<'_>) {
        table.set("every", &mut self.every, Value::duration);
        table.set("rate", &mut self.rate, |value| {
            let rate = value.size()?;
            if rate == 0 {
                value.problem("must not be 0; every: 0s turns the scrub off");
                return None;
            }
            Some(rate)
        });
    }
}
