//! The distribution specification's endpoints.

pub(super) mod blobs;
mod chunk;
pub(super) mod manifests;
mod push;
pub(super) mod referrers;
pub(super) mod tags;
pub(super) mod uploads;
pub(super) mod version;
mod views;
