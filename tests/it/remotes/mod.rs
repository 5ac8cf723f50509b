//! The remote registries' adapters against strict servers of their dialects.

mod dockerhub;
mod ecr;
mod gar;
mod ghcr;
mod gitlab;
mod graphs;
mod harbor;
mod model;
mod oci;
mod prune;
mod quay;
mod server;
mod v2;

/// The registry as it is called in image names.
pub const HOST: &str = "reg.test";

/// Who may delete there.
pub const USER: &str = "cleaner";
pub const PASSWORD: &str = "hunter2-cleaner";

/// A moment of the model as APIs write it.
pub fn time(seconds: u64) -> String {
    larder::clock::Timestamp(seconds * 1000).to_string()
}
