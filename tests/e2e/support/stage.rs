//! An upstream with three images, and larder in front of it.

use super::images;
use super::images::Image;
use super::larder::Larder;
use super::parts::Scratch;
use super::registry::Registry;

/// Its fields are dropped in their order: the folder goes last.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) larder: Larder,
    pub(crate) upstream: Registry,
    /// `library/base:1`: runs.
    pub(crate) base: Image,
    /// `team/tool:2`.
    pub(crate) tool: Image,
    /// `team/multi:3`: an index.
    pub(crate) multi: Image,
    pub(crate) scratch: Scratch,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        let upstream = Registry::start(&scratch);
        let (base, tool, multi) = (images::busybox("base"), images::busybox("tool"), images::index("multi"));
        upstream.push("library/base", "1", &base);
        upstream.push("team/tool", "2", &tool);
        upstream.push("team/multi", "3", &multi);
        let larder = Larder::start(&scratch, upstream.url());
        Self { larder, upstream, base, tool, multi, scratch }
    }
}
