//! Lists of tags and of referrers: the upstream's, and what is held where it can't be asked.

use crate::access::Grant;
use crate::oci::Descriptor;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::store;
use crate::upstream::Priority;

use super::Cache;
use super::Served;
use super::Unproxied;
use super::error::Error;
use super::status::CacheStatus;
use super::status::Source;

/// How many referrers that are held are added to the upstream's list.
const HELD_REFERRERS_MAX: usize = 1_000;

/// Bytes of one page of referrers: clients take manifests of 4 MiB.
const REFERRERS_BYTES_MAX: usize = 2 << 20;

/// One page of tags, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The tags.
    pub tags: Vec<Tag>,
    /// Whether there are more.
    pub more: bool,
}

/// Which referrers are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What they refer to.
    pub subject: Digest,
    /// Those after this one, where a list goes on.
    pub after: Option<Digest>,
    /// Only those of this type.
    pub artifact_type: Option<String>,
}

impl Wanted {
    fn names(&self, referrer: &Descriptor) -> bool {
        self.artifact_type.as_deref().is_none_or(|wanted| referrer.artifact_type.as_deref() == Some(wanted))
    }
}

/// One page of referrers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Referrers {
    /// They, as they stand in the list.
    pub manifests: Vec<Descriptor>,
    /// Where the list goes on, if it does.
    pub next: Option<Digest>,
}

impl Cache {
    /// Up to `limit` tags after `after`. The upstream's list is the list: what is held here alone is gone there. What is
    /// held is listed where the upstream can't be asked.
    pub async fn tags(&self, grant: &Grant, after: Option<&Tag>, limit: usize) -> Result<Served<Listed>, Error> {
        let repository = grant.repository();
        let proxied = match self.proxied(repository) {
            Ok(proxied) => proxied,
            Err(Unproxied::Hosted) => return self.own_tags(repository, after, limit).await,
            Err(Unproxied::Refused(error)) => return Err(error),
        };
        let ask = Self::ask(repository, Priority::Client);
        match proxied.upstream.tags(&ask, after, limit).await {
            Ok(Some(page)) => {
                let listed = Listed { tags: page.tags, more: page.more };
                Ok(Served { content: listed, status: CacheStatus::new(Source::Asked) })
            }
            Ok(None) => Err(Error::ManifestUnknown),
            Err(error) if error.is_unavailable() => {
                let held = self.store.tags(repository, after, limit).await?;
                // An empty page would say that the list ends, where nobody knows how it goes on.
                if held.rows.is_empty() && self.store.tags(repository, None, 1).await?.rows.is_empty() {
                    return Err(error.into());
                }
                let tags = held.rows.into_iter().map(|t| t.record.tag).collect();
                Ok(Served { content: Listed { tags, more: held.more }, status: CacheStatus::new(Source::StaleIfError) })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The tags of a hosted repository. One that holds nothing at all is not known.
    pub(super) async fn own_tags(
        &self,
        repository: &RepositoryKey,
        after: Option<&Tag>,
        limit: usize,
    ) -> Result<Served<Listed>, Error> {
        let held = self.store.tags(repository, after, limit).await?;
        if held.rows.is_empty() && self.store.links(repository, None, 1).await?.rows.is_empty() {
            return Err(Error::RepositoryUnknown);
        }
        let tags = held.rows.into_iter().map(|t| t.record.tag).collect();
        Ok(Served { content: Listed { tags, more: held.more }, status: CacheStatus::new(Source::Hit) })
    }

    /// What refers to the subject in a hosted repository: an empty list where nothing does, whether the subject is there
    /// or not. A page ends before it is too large for clients.
    async fn own_referrers(&self, repository: &RepositoryKey, wanted: &Wanted) -> Result<Served<Referrers>, Error> {
        let (mut found, mut bytes, mut after) = (Referrers::default(), 0, wanted.after);
        'pages: loop {
            let page = self.store.referrers(repository, &wanted.subject, after.as_ref(), HELD_REFERRERS_MAX).await?;
            for referrer in page.rows {
                if wanted.names(&referrer) {
                    bytes += written_bytes(&referrer);
                    if !found.manifests.is_empty() && bytes > REFERRERS_BYTES_MAX {
                        found.next = after;
                        break 'pages;
                    }
                    after = Some(referrer.digest);
                    found.manifests.push(referrer);
                } else {
                    after = Some(referrer.digest);
                }
            }
            if !page.more {
                break;
            }
            if found.manifests.len() >= HELD_REFERRERS_MAX {
                found.next = after;
                break;
            }
        }
        Ok(Served { content: found, status: CacheStatus::new(Source::Hit) })
    }

    /// What refers to the subject: the upstream's list and what is held besides. Where the upstream has no such list the
    /// client is told so, and looks for the tag that stands in for it (distribution-spec, "Listing Referrers").
    pub async fn referrers(&self, grant: &Grant, wanted: &Wanted) -> Result<Served<Referrers>, Error> {
        let (subject, artifact_type) = (&wanted.subject, wanted.artifact_type.as_deref());
        let repository = grant.repository();
        let proxied = match self.proxied(repository) {
            Ok(proxied) => proxied,
            Err(Unproxied::Hosted) => return self.own_referrers(repository, wanted).await,
            Err(Unproxied::Refused(error)) => return Err(error),
        };
        let ask = Self::ask(repository, Priority::Client);
        let (mut listed, source) = match proxied.upstream.referrers(&ask, subject, artifact_type).await {
            Ok(Some(listed)) => (listed, Source::Asked),
            Ok(None) => return Err(Error::NoReferrers),
            Err(error) if error.is_unavailable() => {
                let held = self.store.referrers(repository, subject, None, HELD_REFERRERS_MAX).await?.rows;
                if held.is_empty() {
                    return Err(error.into());
                }
                (held, Source::StaleIfError)
            }
            Err(error) => return Err(error.into()),
        };
        if source == Source::Asked {
            // While the index is being rebuilt the upstream's own list has to do.
            let held = match self.store.referrers(repository, subject, None, HELD_REFERRERS_MAX).await {
                Ok(page) => page.rows,
                Err(store::Error::Incomplete) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            let known: std::collections::HashSet<Digest> = listed.iter().map(|d| d.digest).collect();
            listed.extend(held.into_iter().filter(|d| !known.contains(&d.digest)));
        }
        listed.retain(|referrer| wanted.names(referrer));
        let content = Referrers { manifests: listed, next: None };
        Ok(Served { content, status: CacheStatus::new(source) })
    }
}

/// Bytes that a descriptor takes in a list, nearly.
fn written_bytes(descriptor: &Descriptor) -> usize {
    serde_json::to_vec(descriptor).map_or(0, |text| text.len())
}
