//! What the program says about itself: numbers ([`Metrics`]) and the log ([`logging`]).
//!
//! There is no global: a value is made at start and passed to whoever counts. Delivery to anywhere else is not done here.

pub mod logging;
pub mod metrics;

pub use metrics::Metrics;

/// An error with what caused it, in one line: "asking the upstream: connecting to 10.0.0.1:443: refused".
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_line = cause.to_string();
        // Some libraries repeat their cause in their own words already.
        if !line.ends_with(&cause_line) {
            line.push_str(": ");
            line.push_str(&cause_line);
        }
        source = cause.source();
    }
    line
}
