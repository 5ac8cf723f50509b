//! What the program says about itself.

use super::table::Table;

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// A level (`info`), or a filter of `tracing` (`info,larder::upstream=debug`).
    pub log: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON document a line.
    Json,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log: "info".to_owned(), format: LogFormat::Text }
    }
}

impl Telemetry {
    pub(super) fn read(&mut self, table: &mut Table<'_>) {
        table.later(&["otlp"]);
        table.set("log", &mut self.log, |value| value.parsed(parse_filter));
        table.set("format", &mut self.format, |value| {
            value.word(&[("text", LogFormat::Text), ("json", LogFormat::Json)])
        });
    }
}

/// Reads a log filter.
///
/// # Errors
///
/// What is wrong, and what would be right.
pub fn parse_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let simple = !text.contains(['=', ',', '[']);
    let valid =
        if simple { LEVELS.contains(&text) } else { tracing_subscriber::EnvFilter::builder().parse(text).is_ok() };
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not a log level; write error, warn, info, debug or trace"))
    }
}
