//! What nothing keeps in a hosted repository: found by looking through its links, and removed only after everything was
//! looked at again with all of it locked that could keep it.
//!
//! Three things keep a manifest: a tag that means it, an index that names it, a subject that it refers to. A blob is
//! kept by a manifest that names it. All of that is asked of the index, so nothing is decided while it is not whole; a
//! fault on the way ends the work with nothing removed on the strength of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::RepositoryKey;

use super::Error;
use super::Inner;
use super::Kind;
use super::LinkRecord;
use super::Result;
use super::Standing;
use super::commit::Plan;
use super::leases::Refetch;
use super::names::Name;

/// Links whose standing is written together.
const TOGETHER: usize = 64;
/// Links that are looked at in one go: about a tenth of a millisecond.
const BREATH: usize = 16;
/// Referrers that are looked at when their subject went.
const REFERRERS: usize = 500;
/// Repositories that are remembered as loosened; beyond it all of them are.
const LOOSENED_MAX: usize = 1024;

/// Why nothing keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unkept {
    /// A blob that no manifest names.
    Blob,
    /// A referrer whose subject is not here.
    Orphaned,
    /// A manifest whose last tag was removed, or the index that named it.
    Released,
    /// A manifest whose last tag was moved to another; found so at that time, or just now.
    Replaced(Option<Timestamp>),
}

/// A link that nothing keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loose {
    /// What is linked.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Why nothing keeps it.
    pub why: Unkept,
}

/// Loose links of a part of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LooseLinks {
    /// Those that were found.
    pub found: Vec<Loose>,
    /// Links that were looked at.
    pub looked_at: u64,
    /// Where to go on; none at the end.
    pub next: Option<Digest>,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The links that are gone: manifests and blobs.
    pub removed: Vec<Loose>,
    /// Bytes that became free with them.
    pub freed: u64,
    /// What may have lost its last keeper with them.
    pub next: Vec<Digest>,
}

/// What else keeps manifests of a repository, asked with all locked; none where that is not known, which keeps everything.
pub type Held = dyn Fn(&RepositoryKey) -> Option<HashSet<Digest>> + Send + Sync;

/// Which repositories lost something that keeps.
#[derive(Debug, Default)]
pub(super) struct Loosened {
    repositories: Mutex<Option<HashSet<RepositoryKey>>>,
    told: Notify,
}

impl Loosened {
    pub(super) fn note(&self, of: &RepositoryKey) {
        if !of.is_hosted() {
            return;
        }
        let mut noted = self.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        let repositories = noted.get_or_insert_default();
        if repositories.len() < LOOSENED_MAX {
            repositories.insert(of.clone());
        }
        self.told.notify_one();
    }

    /// Waits until there are some, and takes them. What is beyond the bound is found by the next collection of all.
    pub(super) async fn take(&self) -> HashSet<RepositoryKey> {
        loop {
            let taken = self.repositories.lock().unwrap_or_else(PoisonError::into_inner).take();
            match taken {
                Some(repositories) => return repositories,
                None => self.told.notified().await,
            }
        }
    }
}

impl Inner {
    pub(super) async fn loose(&self, of: &RepositoryKey, after: Option<&Digest>, limit: usize) -> Result<LooseLinks> {
        self.complete()?;
        let page = self.index.links(of, after, limit).await?;
        let mut loose = LooseLinks { looked_at: page.rows.len() as u64, ..LooseLinks::default() };
        loose.next = page.rows.last().map(|link| link.digest).filter(|_| page.more);
        for (number, link) in page.rows.iter().enumerate() {
            loose.found.extend(self.unkept(of, link).await?);
            breathe(number).await;
        }
        Ok(loose)
    }

    /// Those of `digests` that nothing keeps.
    pub(super) async fn loose_of(&self, of: &RepositoryKey, digests: &[Digest]) -> Result<Vec<Loose>> {
        self.complete()?;
        let mut found = Vec::new();
        for digest in digests {
            if let Some(link) = self.index.link(of, digest).await? {
                found.extend(self.unkept(of, &link).await?);
            }
        }
        Ok(found)
    }

    /// Whether nothing keeps a link, and why. The one rule: it finds what may go, and decides with all locked that it does.
    async fn unkept(&self, of: &RepositoryKey, link: &LinkRecord) -> Result<Option<Loose>> {
        let why = self.why_unkept(of, link).await?;
        Ok(why.map(|why| Loose { digest: link.digest, size: link.size, why }))
    }

    async fn why_unkept(&self, of: &RepositoryKey, link: &LinkRecord) -> Result<Option<Unkept>> {
        if !self.index.parents(of, &link.digest, 1).await?.is_empty() {
            return Ok(None);
        }
        let Kind::Manifest { subject, .. } = &link.kind else { return Ok(Some(Unkept::Blob)) };
        if !self.index.tags_of(of, &link.digest, 1).await?.is_empty() {
            return Ok(None);
        }
        if let Some(subject) = subject {
            let subject = self.link(of, subject).await?;
            let there = subject.is_some_and(|subject| matches!(subject.kind, Kind::Manifest { .. }));
            return Ok((!there).then_some(Unkept::Orphaned));
        }
        Ok(match link.standing {
            Standing::Untagged => None,
            Standing::Tagged => Some(Unkept::Replaced(None)),
            Standing::Replaced(since) => Some(Unkept::Replaced(Some(since))),
            Standing::Released => Some(Unkept::Released),
        })
    }

    /// Notes that nothing was found to keep them from `at` on.
    pub(super) async fn note_replaced(
        self: &Arc<Self>,
        of: &RepositoryKey,
        digests: &[Digest],
        at: Timestamp,
    ) -> Result<()> {
        for some in digests.chunks(TOGETHER) {
            self.stand(of, some, |link| (link.standing == Standing::Tagged).then_some(Standing::Replaced(at))).await?;
        }
        Ok(())
    }

    /// What a manifest names goes with it, unless a tag or another manifest keeps it. It is noted beforehand, so that a
    /// crash in between leaves nothing that nobody would ever remove; while the manifest is there it keeps them all the same.
    pub(super) async fn release_children(self: &Arc<Self>, of: &RepositoryKey, digest: &Digest) -> Result<()> {
        if !of.is_hosted() {
            return Ok(());
        }
        let facts = self.index.facts(of, digest).await?.unwrap_or_default();
        for some in facts.children.chunks(TOGETHER) {
            let mut manifests = Vec::new();
            for child in some {
                if self.index.facts(of, child).await?.is_some() {
                    manifests.push(*child);
                }
            }
            self.stand(of, &manifests, |_| Some(Standing::Released)).await?;
        }
        Ok(())
    }

    /// Writes what keeps untagged manifests, where `standing` says so.
    async fn stand(
        self: &Arc<Self>,
        of: &RepositoryKey,
        digests: &[Digest],
        standing: impl Fn(&LinkRecord) -> Option<Standing>,
    ) -> Result<()> {
        if digests.is_empty() {
            return Ok(());
        }
        let names: Vec<Name> = digests.iter().copied().map(Name::Digest).collect();
        let _gate = self.gate.pass().await;
        let _locked = self.names.lock(of, &names).await;
        let mut plan = Plan::default();
        for digest in digests {
            let Some(link) = self.tree.link(of, digest).await? else { continue };
            let is_manifest = matches!(link.kind, Kind::Manifest { .. });
            let Some(standing) = standing(&link).filter(|standing| is_manifest && *standing != link.standing) else {
                continue;
            };
            if self.index.tags_of(of, digest, 1).await?.is_empty() {
                let facts = self.index.facts(of, digest).await?;
                plan.stand(of, link, facts, standing);
            }
        }
        self.carry_out_if_any(of, plan).await
    }

    /// The manifest has lost its last tag, as far as `plan` goes. Its name is locked.
    pub(super) async fn release_one(&self, of: &RepositoryKey, digest: &Digest, plan: &mut Plan) -> Result<()> {
        if !of.is_hosted() {
            return Ok(());
        }
        if let Some(link) = self.tree.link(of, digest).await?
            && link.standing != Standing::Released
            && let Some(facts) = self.index.facts(of, digest).await?
        {
            plan.stand(of, link, Some(facts), Standing::Released);
        }
        Ok(())
    }

    async fn carry_out_if_any(self: &Arc<Self>, of: &RepositoryKey, plan: Plan) -> Result<()> {
        if plan.steps.is_empty() {
            return Ok(());
        }
        self.make_room();
        self.note_epoch(self.is_complete()).await?;
        self.carry_out(of, plan, self.leases.pin(Vec::new()).await).await
    }

    /// Removes those of `loose` that are still as they were found, that no lease protects, and that `held` does not name.
    pub(super) async fn take_loose(
        self: &Arc<Self>,
        of: &RepositoryKey,
        loose: &[Loose],
        held: &Held,
    ) -> Result<Taken> {
        let mut taken = Taken::default();
        for link in loose.iter().filter(|link| link.why != Unkept::Blob) {
            self.release_children(of, &link.digest).await?;
        }
        let keys = {
            let names: Vec<Name> = loose.iter().map(|link| Name::Digest(link.digest)).collect();
            let _gate = self.gate.pass().await;
            let _locked = self.names.lock(of, &names).await;
            self.complete()?;
            // Asked last: whoever looked a tag up before it went has noted by now what it means to him.
            let Some(held) = held(of) else { return Ok(taken) };
            let (mut plan, mut claims, mut keys) = (Plan::default(), Vec::new(), Vec::new());
            let wanted = loose.iter().filter(|loose| !held.contains(&loose.digest));
            for (number, wanted) in wanted.enumerate() {
                breathe(number).await;
                let Some(link) = self.tree.link(of, &wanted.digest).await? else { continue };
                if self.unkept(of, &link).await? != Some(*wanted) {
                    continue;
                }
                let Some(claim) = self.leases.claim(wanted.digest, Refetch::Impossible) else { continue };
                claims.push(claim);
                keys.push(link.blob());
                taken.next.extend(self.kept_by(of, &wanted.digest).await?);
                taken.removed.push(*wanted);
                plan.drop_link(of, link);
            }
            self.carry_out_if_any(of, plan).await?;
            keys
        };
        taken.freed = self.collect_all(&keys).await;
        Ok(taken)
    }

    /// What a manifest keeps: what it names, and what refers to it.
    async fn kept_by(&self, of: &RepositoryKey, digest: &Digest) -> Result<Vec<Digest>> {
        let mut kept = self.index.facts(of, digest).await?.unwrap_or_default().children;
        let referrers = self.index.referrers(of, digest, None, REFERRERS).await?;
        kept.extend(referrers.rows.into_iter().map(|referrer| referrer.digest));
        Ok(kept)
    }
}

/// Lets others run now and then: lookups answer on the spot, and a row of them would hold up a thread that pulls are served
/// on.
async fn breathe(number: usize) {
    if number % BREATH == BREATH - 1 {
        tokio::task::yield_now().await;
    }
}

/// Runs the removal as work of its own, as a commit does.
pub(super) async fn take(store: &Arc<Inner>, of: RepositoryKey, loose: Vec<Loose>, held: Arc<Held>) -> Result<Taken> {
    let inner = Arc::clone(store);
    let work = async move { inner.take_loose(&of, &loose, &*held).await };
    store.tasks.spawn("collect", work).await.map_err(|_| Error::Closed)?
}
