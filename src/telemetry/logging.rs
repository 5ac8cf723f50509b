//! The log: `tracing` events on standard error, as text for people or one JSON document a line.
//!
//! `docs/logging.md` says what goes to which level and which fields there are.

use std::io::IsTerminal as _;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::clock::Clock;
use crate::config::telemetry::LogFormat;
use crate::config::telemetry::Telemetry;

/// Why there is no log, or no other filter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter can't be read.
    #[error("reading the log filter `{filter}`")]
    Filter {
        /// The text.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else takes the events already.
    #[error("starting the log")]
    Taken(#[source] tracing_subscriber::util::TryInitError),
    /// The log is gone.
    #[error("changing the log filter")]
    Gone(#[source] reload::Error),
}

/// The running log, whose filter can be changed by a reload.
#[derive(Clone)]
pub struct Logging {
    change: Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
}

impl std::fmt::Debug for Logging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Logging")
    }
}

/// The time of an event, by our own clock and in our own writing.
struct Time(Clock);

impl FormatTime for Time {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{}", self.0.now())
    }
}

impl Logging {
    /// Takes all events of this process from now on.
    ///
    /// # Errors
    ///
    /// A filter that can't be read, or a second start in one process.
    pub fn start(telemetry: &Telemetry, clock: &Clock) -> Result<Self, Error> {
        let (filter, handle) = reload::Layer::new(filter(&telemetry.log)?);
        let time = Time(clock.clone());
        let registry = tracing_subscriber::registry().with(filter);
        let started = match telemetry.format {
            LogFormat::Text => {
                let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                let lines = tracing_subscriber::fmt::layer()
                    .with_timer(time)
                    .with_ansi(colour)
                    .with_target(false)
                    .with_writer(std::io::stderr);
                registry.with(lines).try_init()
            }
            LogFormat::Json => {
                let lines = tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false)
                    .with_timer(time)
                    .with_writer(std::io::stderr);
                registry.with(lines).try_init()
            }
        };
        started.map_err(Error::Taken)?;
        Ok(Self { change: Arc::new(move |filter| handle.reload(filter)) })
    }

    /// Takes another level or filter; the format stays as it was at the start.
    ///
    /// # Errors
    ///
    /// A filter that can't be read; the old one stays.
    pub fn set(&self, text: &str) -> Result<(), Error> {
        (self.change)(filter(text)?).map_err(Error::Gone)
    }
}

/// The filter of the configuration's text. What the libraries below us say at `info` is not for operators.
fn filter(text: &str) -> Result<EnvFilter, Error> {
    EnvFilter::builder().parse(text).map_err(|source| Error::Filter { filter: text.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_read() {
        for good in ["info", "debug", "info,larder::upstream=debug", "off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        assert!(matches!(filter("larder=loud"), Err(Error::Filter { .. })));
    }
}
