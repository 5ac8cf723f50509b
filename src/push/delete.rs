//! Removing tags, manifests and blobs (distribution-spec, "Content Management", end-9, end-10).

use crate::access::Grant;
use crate::config::Action;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::store::Removal;

use super::Error;
use super::Push;

impl Push {
    /// Removes a tag; or a manifest by its digest, and with it every tag that means it.
    pub async fn delete_manifest(&self, grant: &Grant, reference: &Reference) -> Result<(), Error> {
        let repository = Self::hosted(grant, Action::Delete)?;
        let removal = match reference {
            Reference::Tag(tag) => Removal::Tag(tag.clone()),
            Reference::Digest(digest) => Removal::Manifest(*digest),
        };
        let was_there = self.store.remove(repository, removal, self.fixed(repository)).await?;
        if was_there { Ok(()) } else { Err(Error::ManifestUnknown) }
    }

    /// Removes a blob from its repository; other repositories that have it keep it.
    pub async fn delete_blob(&self, grant: &Grant, digest: &Digest) -> Result<(), Error> {
        let repository = Self::hosted(grant, Action::Delete)?;
        let was_there = self.store.remove(repository, Removal::Blob(*digest), self.fixed(repository)).await?;
        if was_there { Ok(()) } else { Err(Error::BlobUnknown) }
    }
}
