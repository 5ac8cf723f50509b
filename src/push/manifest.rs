//! Pushing manifests (distribution-spec, "Pushing Manifests", end-7a, end-7b).

use bytes::Bytes;

use crate::access::Grant;
use crate::config::Action;
use crate::oci::Digest;
use crate::oci::Manifest;
use crate::oci::MediaType;
use crate::oci::Reference;
use crate::oci::Tag;
use crate::store::Condition;
use crate::store::Put;

use super::Error;
use super::Push;

/// A manifest as a client sends it.
#[derive(Clone, Debug)]
pub struct NewManifest {
    /// What it is pushed as.
    pub reference: Reference,
    /// Tags that it gets besides.
    pub tags: Vec<Tag>,
    /// The type that it was sent with.
    pub content_type: String,
    /// The exact bytes.
    pub bytes: Bytes,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedManifest {
    /// The digest of its bytes, by the algorithm that the client uses.
    pub digest: Digest,
    /// Its type.
    pub media_type: MediaType,
    /// The tags that mean it now.
    pub tags: Vec<Tag>,
    /// What it refers to; the list of that one's referrers has it now.
    pub subject: Option<Digest>,
}

impl Push {
    /// Keeps a manifest and gives it its tags: all of it or nothing. What it names must be in the repository, its subject
    /// excepted, and so are layers that are not to be distributed.
    pub async fn manifest(&self, grant: &Grant, new: NewManifest) -> Result<PushedManifest, Error> {
        let repository = Self::hosted(grant, Action::Push)?;
        let NewManifest { reference, mut tags, content_type, bytes } = new;
        let digest = match &reference {
            Reference::Digest(wanted) => {
                let got = Digest::of_with(wanted.algorithm(), &bytes);
                if got != *wanted {
                    return Err(Error::WrongDigest { got });
                }
                got
            }
            Reference::Tag(tag) => {
                tags.insert(0, tag.clone());
                Digest::of(&bytes)
            }
        };
        let manifest = Manifest::parse_strictly(bytes, &content_type).map_err(Error::NotAManifest)?;
        let (media_type, size) = (manifest.media_type.clone(), manifest.size());
        let subject = manifest.links.subject.as_ref().map(|subject| subject.digest);
        let fixed = self.fixed(repository);
        let mut conditions = needed(&manifest);
        conditions.extend(tags.iter().filter(|tag| fixed(tag)).map(|tag| Condition::Unmoved(tag.clone(), digest)));
        let pusher = grant.principal().to_string();
        let mut puts = vec![Put::Manifest { manifest, digest }];
        puts.extend(tags.iter().map(|tag| Put::Tag {
            tag: tag.clone(),
            digest,
            media_type: media_type.clone(),
            size,
            pusher: Some(pusher.clone()),
        }));
        self.store.commit_if(repository, puts, conditions).await?;
        Ok(PushedManifest { digest, media_type, tags, subject })
    }
}

/// What the repository must have for the manifest to be whole, each once.
///
/// BuildKit's older caches are indexes that list blobs: there the descriptor's type tells what it is.
fn needed(manifest: &Manifest) -> Vec<Condition> {
    let links = &manifest.links;
    let blobs = links.config.iter().chain(&links.layers).filter(|blob| !blob.media_type.is_nondistributable());
    let mut needed: Vec<Condition> = blobs.map(|blob| Condition::Linked(blob.digest)).collect();
    needed.extend(links.manifests.iter().map(|entry| {
        let needed = if entry.media_type.is_manifest() { Condition::HasManifest } else { Condition::Linked };
        needed(entry.digest)
    }));
    let mut seen = std::collections::HashSet::new();
    needed.retain(|condition| match condition {
        Condition::Linked(digest) | Condition::HasManifest(digest) => seen.insert(*digest),
        Condition::Unmoved(..) => true,
    });
    needed
}
