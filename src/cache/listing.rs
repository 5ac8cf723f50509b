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

/// One page of tags, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The tags.
    pub tags: Vec<Tag>,
    /// Whether there are more.
    pub more: bool,
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
    async fn own_tags(
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

    /// What refers to `subject` in a hosted repository: an empty list where nothing does, whether the subject is there or
    /// not.
    async fn own_referrers(
        &self,
        repository: &RepositoryKey,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Served<Vec<Descriptor>>, Error> {
        let mut listed = self.store.referrers(repository, subject, None, HELD_REFERRERS_MAX).await?.rows;
        listed.retain(|d| artifact_type.is_none_or(|wanted| d.artifact_type.as_deref() == Some(wanted)));
        Ok(Served { content: listed, status: CacheStatus::new(Source::Hit) })
    }

    /// What refers to `subject`: the upstream's list and what is held besides. Where the upstream has no such list the
    /// client is told so, and looks for the tag that stands in for it (distribution-spec, "Listing Referrers").
    pub async fn referrers(
        &self,
        grant: &Grant,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Served<Vec<Descriptor>>, Error> {
        let repository = grant.repository();
        let proxied = match self.proxied(repository) {
            Ok(proxied) => proxied,
            Err(Unproxied::Hosted) => return self.own_referrers(repository, subject, artifact_type).await,
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
        listed.retain(|d| artifact_type.is_none_or(|wanted| d.artifact_type.as_deref() == Some(wanted)));
        Ok(Served { content: listed, status: CacheStatus::new(source) })
    }
}
