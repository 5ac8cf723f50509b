//! What a registry can delete, and what that takes along.

/// What a registry can delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// A tag by its name.
    pub tags: bool,
    /// A manifest whose last tag is deleted goes with it.
    pub last_tag_takes_manifest: bool,
    /// A manifest, with every tag that means it.
    pub manifests: bool,
}

impl Caps {
    /// Tags and nothing else; manifests are the registry's own to collect.
    pub const TAGS: Self = Self { tags: true, last_tag_takes_manifest: false, manifests: false };
    /// Tags, and manifests beside them.
    pub const TAGS_AND_MANIFESTS: Self = Self { tags: true, last_tag_takes_manifest: false, manifests: true };
    /// Tags, of which the last takes its manifest along, and manifests.
    pub const LAST_TAG_TAKES: Self = Self { tags: true, last_tag_takes_manifest: true, manifests: true };
    /// Manifests with all of their tags only.
    pub const MANIFESTS: Self = Self { tags: false, last_tag_takes_manifest: false, manifests: true };
}
