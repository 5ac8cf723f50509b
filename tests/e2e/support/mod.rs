//! What the tests share.

pub(crate) mod buildkitd;
pub(crate) mod client;
pub(crate) mod content;
pub(crate) mod images;
pub(crate) mod larder;
pub(crate) mod parts;
pub(crate) mod registry;
pub(crate) mod stage;
pub(crate) mod wire;
