//! larder is an OCI layer cache that sits on the registry side of CI.
//!
//! Runners pull through it, builds push their caches to it. One binary; a folder on disk is enough to run it.
//! The modules stand below in reading order, the lowest layer first; a module imports lower layers only
//! (ARCHITECTURE.md has the picture, `tests/layering.rs` holds it).
//!
//! A pull goes four hops down and comes back one way: [`api`] parses the request and asks [`access`] for a `Grant`;
//! [`cache`] answers from [`store`], or fills from [`upstream`] into a spool that every client follows.

pub mod access;
pub mod api;
pub mod body;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod oci;
pub mod pattern;
pub mod repository;
pub mod server;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod upstream;
