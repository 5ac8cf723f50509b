//! Manifests: by digest from the store or the upstream, by tag through `tag`.

use std::sync::Arc;

use bytes::Bytes;

use crate::access::Grant;
use crate::history::Use;
use crate::oci::Digest;
use crate::oci::Manifest;
use crate::oci::MediaType;
use crate::oci::Reference;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::repository::Proxied;
use crate::store::Held;
use crate::store::Kind;
use crate::store::Origin;
use crate::store::Put;
use crate::upstream::Ask;
use crate::upstream::Priority;
use crate::upstream::RawManifest;

use super::Cache;
use super::Served;
use super::error::Error;
use super::status::CacheStatus;
use super::status::Source;
use super::status::View;

/// A manifest as it is served. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ManifestBody {
    /// Its digest.
    pub digest: Digest,
    /// The media type that it was sent with.
    pub media_type: MediaType,
    /// The exact bytes.
    pub bytes: Bytes,
}

/// What a client wants of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its bytes.
    Pull,
    /// What a tag means, to pull it by its digest: a HEAD that takes manifests of several types.
    Resolve,
    /// Whether it is there already, before it is pushed: a HEAD that takes one type, or names none. It is no use of it.
    Look,
}

/// A manifest that came from the upstream and is what it should be.
pub(super) struct Fetched {
    pub(super) digest: Digest,
    pub(super) manifest: Manifest,
}

impl Fetched {
    pub(super) fn body(&self) -> ManifestBody {
        ManifestBody {
            digest: self.digest,
            media_type: self.manifest.media_type.clone(),
            bytes: self.manifest.bytes.clone(),
        }
    }
}

impl Cache {
    /// A manifest of the granted repository. Where its bytes go out, the blobs that an image manifest names are fetched
    /// ahead of the requests for them.
    pub async fn manifest(
        &self,
        grant: &Grant,
        reference: &Reference,
        purpose: Purpose,
    ) -> Result<Served<ManifestBody>, Error> {
        let repository = grant.repository();
        match reference {
            Reference::Digest(digest) => {
                let answer = self.manifest_by_digest(repository, digest).await?;
                self.account(repository, None, &answer, purpose);
                Ok(answer)
            }
            Reference::Tag(tag) => {
                let answer = self.manifest_by_tag(repository, tag).await?;
                self.account(repository, Some(tag), &answer, purpose);
                Ok(answer)
            }
        }
    }

    /// The manifest that `view` says a tag of the granted repository means, whatever the tag's own record says. It is a use
    /// of the tag.
    pub async fn manifest_seen(
        &self,
        grant: &Grant,
        (tag, digest): (&Tag, &Digest),
        view: View,
        purpose: Purpose,
    ) -> Result<Served<ManifestBody>, Error> {
        let repository = grant.repository();
        let answer = self.manifest_by_digest(repository, digest).await?;
        self.account(repository, Some(tag), &answer, purpose);
        Ok(Served { status: answer.status.seen_through(view), ..answer })
    }

    /// Notes the use that an answer is, and looks after what will be asked for next.
    fn account(&self, repository: &RepositoryKey, tag: Option<&Tag>, answer: &Served<ManifestBody>, purpose: Purpose) {
        if purpose == Purpose::Look {
            return;
        }
        let now = self.clock.now();
        let from_here = answer.status.is_hit();
        let how = if purpose == Purpose::Pull { Use::Pulled { from_here } } else { Use::Resolved };
        self.history.note(repository, tag, &answer.content.digest, how, now);
        self.store.used(repository, &answer.content.digest, now);
        if let Some(tag) = tag {
            self.store.used_tag(repository, tag, now);
        }
        if purpose == Purpose::Pull {
            if from_here {
                self.metrics.saved_pull();
            }
            self.look_after(repository, &answer.content);
        }
    }

    pub(super) async fn manifest_by_digest(
        &self,
        repository: &RepositoryKey,
        digest: &Digest,
    ) -> Result<Served<ManifestBody>, Error> {
        match self.held_manifest(repository, digest).await? {
            Some(body) => Ok(Served { content: body, status: CacheStatus::new(Source::Hit) }),
            // Boxed, so that a hit is not as large in memory as what asks an upstream.
            None => Box::pin(self.missed_manifest(repository, digest)).await,
        }
    }

    async fn missed_manifest(
        &self,
        repository: &RepositoryKey,
        digest: &Digest,
    ) -> Result<Served<ManifestBody>, Error> {
        let proxied = self.proxied(repository).map_err(super::Unproxied::or_manifest_unknown)?;
        let reference = Reference::Digest(*digest);
        self.check_absent(repository, &reference)?;
        let key = (repository.clone(), *digest);
        let (cache, owned, wanted) = (self.clone(), repository.clone(), reference.clone());
        let landed = self
            .manifests
            .join(key, |publish| async move {
                let _counted = cache.counted("manifest");
                let ask = Self::ask(&owned, Priority::Client);
                match cache.fetch_manifest(&owned, &proxied, &ask, &wanted).await {
                    Ok(fetched) => {
                        publish.send(Ok(fetched.body()));
                        cache.keep_manifest(&owned, fetched, None).await;
                    }
                    Err(error) => publish.send(Err(error)),
                }
            })
            .await?;
        let body = landed.value.map_err(|e| self.noted_absent(repository, &reference, e))?;
        Ok(Served { content: body, status: CacheStatus::new(Source::Miss).collapsed(landed.collapsed) })
    }

    /// A manifest that is here.
    pub(super) async fn held_manifest(
        &self,
        repository: &RepositoryKey,
        digest: &Digest,
    ) -> Result<Option<ManifestBody>, Error> {
        let held = self.held(repository, digest).await?;
        Ok(held.as_deref().and_then(Self::manifest_of).or_else(|| self.recent.get(&(repository.clone(), *digest))))
    }

    fn manifest_of(held: &Held) -> Option<ManifestBody> {
        let Kind::Manifest { media_type, .. } = &held.link.kind else { return None };
        let bytes = held.manifest()?.clone();
        Some(ManifestBody { digest: held.link.digest, media_type: media_type.clone(), bytes })
    }

    /// Fetches a manifest from the upstream and checks it: its digest, its form, its type.
    pub(super) async fn fetch_manifest(
        &self,
        repository: &RepositoryKey,
        proxied: &Proxied,
        ask: &Ask,
        reference: &Reference,
    ) -> Result<Fetched, Error> {
        let raw = proxied.upstream.manifest(ask, reference).await?.ok_or(Error::ManifestUnknown)?;
        let fetched = Self::checked(reference, raw).map_err(|error| self.alarm.heard(repository, error))?;
        self.recent.insert((repository.clone(), fetched.digest), fetched.body());
        for child in fetched.manifest.links.children() {
            self.expected.insert((repository.clone(), child.digest), child.size);
        }
        Ok(fetched)
    }

    fn checked(reference: &Reference, raw: RawManifest) -> Result<Fetched, Error> {
        // A tag's answer that names its digest is held to it; the client will ask for that digest next.
        let wanted = reference.digest().or(raw.digest);
        let digest = match wanted {
            Some(wanted) if Digest::of_with(wanted.algorithm(), &raw.bytes) != wanted => {
                return Err(Error::WrongBytes { wanted });
            }
            Some(wanted) => wanted,
            None => Digest::of(&raw.bytes),
        };
        let manifest = Manifest::parse(raw.bytes, &raw.content_type).map_err(|e| Error::NotAManifest(Arc::new(e)))?;
        Ok(Fetched { digest, manifest })
    }

    /// Commits a manifest that has been published to its clients already, with the tag that it was asked by. A store
    /// that can't take it (full, read-only) leaves the clients as they are: they have their answer.
    pub(super) async fn keep_manifest(&self, repository: &RepositoryKey, fetched: Fetched, tag: Option<&Tag>) {
        let (digest, size, media_type) = (fetched.digest, fetched.manifest.size(), fetched.manifest.media_type.clone());
        let mut puts = vec![Put::Manifest { manifest: fetched.manifest, digest }];
        puts.extend(tag.map(|tag| Put::Tag { tag: tag.clone(), digest, media_type, size, pusher: None }));
        if let Err(error) = self.store.commit(repository, Origin::Proxied, puts).await {
            tracing::warn!(%repository, %digest, error = %crate::telemetry::chain(&error), "a manifest was served and could not be kept");
        }
        self.grown.notify_one();
    }
}
