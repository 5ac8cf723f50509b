//! A manifest pulled is a promise of its blobs: their fills start when it is served, so that a client's requests, one
//! after the other, find them under way. The manifest itself never waits for them.

use std::sync::Arc;

use crate::oci::Descriptor;
use crate::oci::Manifest;
use crate::oci::MediaType;
use crate::oci::RepositoryKey;
use crate::upstream::Priority;

use super::Cache;
use super::manifest::ManifestBody;

impl Cache {
    /// Starts the fills of what an image manifest names, once for each manifest while it is remembered.
    pub(super) fn look_after(&self, repository: &RepositoryKey, body: &ManifestBody) {
        if !body.media_type.is_image() || repository.is_hosted() {
            return;
        }
        let key = (repository.clone(), body.digest);
        if self.looked_after.get(&key).is_some() {
            return;
        }
        self.looked_after.insert(key, ());
        let (cache, repository, body) = (self.clone(), repository.clone(), body.clone());
        let counted = self.counted("ahead");
        self.tasks.spawn("fills ahead", async move {
            cache.fill_children(repository, body).await;
            drop(counted);
        });
    }

    async fn fill_children(self, repository: RepositoryKey, body: ManifestBody) {
        let Ok(manifest) = Manifest::parse(body.bytes, body.media_type.as_str()) else { return };
        // A client of a build cache takes a few of its layers, or none: fetching all of them would be waste.
        if manifest.links.config.as_ref().is_some_and(|c| c.media_type.as_str() == MediaType::BUILDKIT_CACHE) {
            return;
        }
        let Ok(proxied) = self.proxied(&repository) else { return };
        for child in manifest.links.config.iter().chain(&manifest.links.layers).filter(|c| is_distributed(c)) {
            self.expected.insert((repository.clone(), child.digest), child.size);
            // Ends when the cache does, which is never before the process stops.
            let Ok(permit) = Arc::clone(&self.ahead).acquire_owned().await else { return };
            let (cache, repository, proxied, digest) =
                (self.clone(), repository.clone(), proxied.clone(), child.digest);
            let counted = self.counted("ahead");
            self.tasks.spawn("fill ahead", async move {
                if let Err(error) = cache.fill_ahead(&repository, &proxied, &digest, Priority::Client).await {
                    tracing::debug!(%repository, %digest, %error, "a blob could not be fetched ahead of its request");
                }
                drop((permit, counted));
            });
        }
    }
}

/// Whether the registry itself has the blob: foreign layers are named with addresses elsewhere, which larder never follows.
fn is_distributed(descriptor: &Descriptor) -> bool {
    let media_type = descriptor.media_type.as_str();
    !media_type.contains(".nondistributable.") && !media_type.contains(".foreign.")
}
