//! What the program says about itself: numbers ([`Metrics`]) and the log ([`logging`]).
//!
//! There is no global: a value is made at start and passed to whoever counts. Delivery to anywhere else is not done here.

pub mod logging;
pub mod metrics;

pub use metrics::Metrics;
