//! larder is an OCI layer cache that sits on the registry side of CI.
//!
//! Runners pull through it, builds push their caches to it. One binary; a folder on disk is enough to run it.
//! The modules stand below in reading order, the lowest layer first; a module imports lower layers only
//! (ARCHITECTURE.md has the picture, `tests/layering.rs` holds it).
//!
//! A pull goes four hops down and comes back one way: [`api`] parses the request and asks [`access`] for a `Grant`;
//! [`cache`] answers from [`store`], or fills from [`upstream`] into a spool that every client follows.

#[cfg(feature = "server")]
pub mod access;
#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod body;
#[cfg(feature = "server")]
pub mod cache;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod events;
#[cfg(feature = "server")]
pub mod forge;
#[cfg(feature = "server")]
pub mod history;
#[cfg(feature = "server")]
pub mod net;
pub mod oci;
pub mod pattern;
#[cfg(feature = "server")]
pub mod push;
#[cfg(feature = "server")]
pub mod report;
#[cfg(feature = "server")]
pub mod repository;
#[cfg(feature = "server")]
pub mod retention;
#[cfg(feature = "server")]
pub mod schedule;
#[cfg(feature = "server")]
pub mod scrub;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod tasks;
#[cfg(feature = "server")]
pub mod telemetry;
#[cfg(feature = "server")]
pub mod upstream;
#[cfg(feature = "server")]
pub mod views;
#[cfg(feature = "server")]
pub mod warm;
#[cfg(feature = "server")]
pub mod webhook;

/// Without the server only what is pure is there: what the fuzz targets need, built in seconds.
#[cfg(not(feature = "server"))]
pub mod repository {
    pub mod names;

    pub use names::Spelling;
}

/// Without the server: the request line.
#[cfg(not(feature = "server"))]
pub mod api {
    pub mod route;
}
