//! One collection as a row of small steps: each looks at some links, or removes some of what was found. Between two of them
//! anything may happen: what is removed is looked at again with all of it locked.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::Clock;
use crate::oci::Class;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::store::Loose;
use crate::store::Store;
use crate::store::Unkept;
use crate::views::Views;

use super::Error;
use super::Progress;
use super::Settings;
use super::caches;

/// Links that one step looks at.
const LOOK: usize = 100;
/// Links that one step removes.
const TAKE: usize = 64;
/// Repositories that are listed at a time.
const REPOSITORIES: usize = 100;

/// Where a collection is.
#[derive(Debug)]
pub struct Cycle {
    store: Store,
    views: Views,
    clock: Clock,
    settings: Arc<Settings>,
    /// Whether all repositories are looked at, and their bytes after them.
    everything: bool,
    /// The repositories that come next.
    ahead: VecDeque<RepositoryKey>,
    /// Where the list of repositories goes on.
    listed: Rest<RepositoryKey>,
    current: Option<Place>,
    progress: Progress,
}

/// What is left of a list that is read page by page.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rest<T> {
    /// All of it.
    Whole,
    /// What comes after this.
    After(T),
    /// Nothing.
    Nothing,
}

impl<T> Rest<T> {
    fn after(last: Option<T>) -> Self {
        last.map_or(Self::Nothing, Self::After)
    }

    /// It is being read: nothing is left of it until it is said.
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Nothing)
    }

    fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// The last that was read.
    fn last(self) -> Option<T> {
        if let Self::After(last) = self { Some(last) } else { None }
    }
}

/// Where it is in one repository.
#[derive(Debug)]
struct Place {
    of: RepositoryKey,
    /// Where the links go on.
    next: Rest<Digest>,
    /// What was found and is to be removed.
    found: VecDeque<Loose>,
    /// What may have lost its last keeper.
    suspects: Vec<Digest>,
}

impl Cycle {
    pub(super) fn new(
        store: Store,
        views: Views,
        clock: Clock,
        settings: Arc<Settings>,
        of: Option<HashSet<RepositoryKey>>,
    ) -> Self {
        let everything = of.is_none();
        let ahead: VecDeque<RepositoryKey> = of.into_iter().flatten().collect();
        let remark = clock.jumped().map(|by| {
            let hours = by.as_secs() / 3600;
            format!("the clock was set by {hours} hours: nothing was taken for its age; restart larder when the clock is right")
        });
        let progress = Progress { remark, ..Progress::default() };
        let listed = if everything { Rest::Whole } else { Rest::Nothing };
        Self { store, views, clock, settings, everything, ahead, listed, current: None, progress }
    }

    /// What was done so far.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(super) fn is_of_everything(&self) -> bool {
        self.everything
    }

    /// Does the next step; false where there is none.
    pub async fn step(&mut self) -> Result<bool, Error> {
        let Some(mut place) = self.current.take() else { return self.enter().await };
        if !place.suspects.is_empty() {
            let some: Vec<Digest> = place.suspects.split_off(place.suspects.len().saturating_sub(LOOK));
            let loose = self.store.loose_of(&place.of, &some).await?;
            self.sort(&mut place, loose).await?;
        } else if !place.found.is_empty() {
            self.take(&mut place).await?;
        } else if !place.next.is_nothing() {
            let after = place.next.take().last();
            let loose = self.store.loose(&place.of, after.as_ref(), LOOK).await?;
            self.progress.looked_at += loose.looked_at;
            place.next = Rest::after(loose.next);
            self.sort(&mut place, loose.found).await?;
        } else {
            return Ok(true);
        }
        self.current = Some(place);
        Ok(true)
    }

    /// Goes on to the next repository.
    async fn enter(&mut self) -> Result<bool, Error> {
        let Some(of) = self.next_repository().await? else {
            if std::mem::take(&mut self.everything) {
                // Bytes whose links went while somebody was just storing them again.
                self.progress.freed += self.store.sweep().await?;
            }
            return Ok(false);
        };
        if self.progress.remark.is_none()
            && let Some(cache) = self.settings.cache(&of)
        {
            self.progress.cache_tags +=
                caches::drop_unused(&self.store, &self.views, &of, cache, self.clock.now()).await?;
        }
        self.current = Some(Place { of, next: Rest::Whole, found: VecDeque::new(), suspects: Vec::new() });
        Ok(true)
    }

    async fn next_repository(&mut self) -> Result<Option<RepositoryKey>, Error> {
        while self.ahead.is_empty() {
            if self.listed.is_nothing() {
                return Ok(None);
            }
            let after = self.listed.take().last();
            let page = self.store.repositories(after.as_ref(), REPOSITORIES).await?;
            self.listed = Rest::after(page.rows.last().cloned().filter(|_| page.more));
            self.ahead.extend(page.rows.into_iter().filter(RepositoryKey::is_hosted));
        }
        Ok(self.ahead.pop_front())
    }

    /// What may go now, what goes later, and what is noted so that it goes one day.
    async fn sort(&mut self, place: &mut Place, loose: Vec<Loose>) -> Result<(), Error> {
        let now = self.clock.now();
        let mut new = Vec::new();
        for link in loose {
            let goes = match link.why {
                Unkept::Blob | Unkept::Orphaned | Unkept::Released => true,
                Unkept::Replaced(since) => {
                    let held = self.store.held(&place.of, &link.digest).await?;
                    let is_cache = held.is_some_and(|held| held.class() == Some(Class::BuildCache));
                    let keep = self.settings.keep(&place.of, is_cache);
                    if since.is_none() {
                        new.push(link.digest);
                    }
                    // What is to be kept for no time goes with the next collection: this one has noted it.
                    since.is_some_and(|since| now.since(since) >= keep) && self.progress.remark.is_none()
                }
            };
            if goes {
                place.found.push_back(link);
            } else {
                self.progress.waiting += 1;
            }
        }
        Ok(self.store.note_replaced(&place.of, &new, now).await?)
    }

    async fn take(&mut self, place: &mut Place) -> Result<(), Error> {
        let some: Vec<Loose> = place.found.drain(..TAKE.min(place.found.len())).collect();
        let count = some.len();
        let runs = self.views.runs.clone();
        // Asked first, so that a collection that can't know says so instead of finding nothing.
        runs.held_in(&place.of).ok_or(Error::Runs)?;
        let held = move |of: &RepositoryKey| runs.held_in(of);
        let taken = self.store.take_loose(&place.of, some, Arc::new(held)).await?;
        let blobs = taken.removed.iter().filter(|loose| loose.why == Unkept::Blob).count();
        self.progress.blobs += blobs as u64;
        self.progress.manifests += (taken.removed.len() - blobs) as u64;
        self.progress.waiting += (count - taken.removed.len()) as u64;
        self.progress.freed += taken.freed;
        place.suspects.extend(taken.next);
        Ok(())
    }
}
