//! How much of the pulls of the past is kept.

use std::time::Duration;

use super::limits::at_least;
use super::limits::positive;
use super::table::Table;
use super::value::Value;

/// The history of pulls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// How long a pull is known.
    pub keep: Duration,
    /// Bytes on disk; beyond it the oldest go.
    pub max_size: u64,
    /// Images whose uses wait to be written down; what finds no room counts as not known.
    pub queue: u32,
}

impl Default for History {
    fn default() -> Self {
        Self { keep: Duration::from_hours(90 * 24), max_size: 256 << 20, queue: 65_536 }
    }
}

impl History {
    pub(super) fn read(&mut self, table: &mut Table<'_>) {
        table.set("keep", &mut self.keep, positive);
        table.set("max_size", &mut self.max_size, |value| at_least(value, 1 << 20, "1MiB"));
        table.set("queue", &mut self.queue, Value::at_least_one);
    }
}
