//! What must hold at the moment of a commit, else nothing of it is written.
//!
//! Looked at with the names locked that the commit and its conditions touch: what is removed or moved at the same
//! moment comes wholly before or wholly after.

use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

use super::Error;
use super::Inner;
use super::Kind;
use super::Result;
use super::names::Name;

/// Something that a commit depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The repository links the bytes; else [`Error::Unlinked`].
    Linked(Digest),
    /// The repository has the manifest; else [`Error::Unlinked`].
    HasManifest(Digest),
    /// The tag is new, or means this already; else [`Error::Fixed`].
    Unmoved(Tag, Digest),
}

impl Condition {
    /// What it looks at.
    pub(super) fn name(&self) -> Name {
        match self {
            Self::Linked(digest) | Self::HasManifest(digest) => Name::Digest(*digest),
            Self::Unmoved(tag, _) => Name::Tag(tag.clone()),
        }
    }
}

impl Inner {
    /// Whether all of them hold. The names are locked.
    pub(super) async fn hold(&self, of: &RepositoryKey, conditions: &[Condition]) -> Result<()> {
        for condition in conditions {
            match condition {
                Condition::Linked(digest) => {
                    self.link(of, digest).await?.ok_or(Error::Unlinked { digest: *digest })?;
                }
                Condition::HasManifest(digest) => {
                    let link = self.link(of, digest).await?;
                    let manifest = link.filter(|link| matches!(link.kind, Kind::Manifest { .. }));
                    manifest.ok_or(Error::Unlinked { digest: *digest })?;
                }
                Condition::Unmoved(tag, digest) => {
                    let before = self.tag_record(of, tag).await?.filter(|before| before.gone.is_none());
                    if before.is_some_and(|before| before.digest != *digest) {
                        return Err(Error::Fixed { tag: tag.clone() });
                    }
                }
            }
        }
        Ok(())
    }
}
