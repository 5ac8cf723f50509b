//! larder as the built program between real parts: Debian's docker-registry as upstream, and the clients that people
//! have in front of it. Each test starts what it needs in a folder of its own and ends it by its own pid.
//!
//! `tests/parts/install` installs the parts; engines need root. A part that is missing fails its test, unless
//! `LARDER_E2E_SKIP_MISSING=1`. `LARDER_E2E_KEEP=1` keeps the folders with the logs. `LARDER_E2E_PEER=distribution` puts
//! docker-registry's own proxy mode in larder's place: it shows that these tests are right about the clients, and
//! which of them a common cache does not pass.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    reason = "a test that cannot go on says where and ends"
)]

mod support;

mod build_cache;
mod buildkit;
mod containerd;
mod crane;
mod demo;
mod docker;
mod image;
mod image_cache;
mod pipeline;
mod podman;
mod push;
mod push_access;
mod retention;
mod run_view;
