//! The remote registries' adapters against strict servers of their dialects.

#![allow(dead_code, reason = "the other dialects use the rest")]

mod graphs;
mod model;
mod oci;
mod server;
mod v2;

/// The registry as it is called in image names.
pub const HOST: &str = "reg.test";

/// Who may delete there.
pub const USER: &str = "cleaner";
pub const PASSWORD: &str = "hunter2-cleaner";
