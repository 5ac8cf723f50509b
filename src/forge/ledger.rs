//! What is known of a repository of a forge, and how listings and events change it. Nothing here waits or asks the time.
//!
//! A branch is gone only where a complete listing lacks it; an event says since when, and that it is worth to list again.
//! What happened while a listing ran is not undone by it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;

/// What is known of a repository's branches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branches {
    /// Those that are there.
    pub alive: BTreeSet<String>,
    /// Those that were there once, and since when it is known that they are gone. No push came since.
    pub dead: BTreeMap<String, Timestamp>,
    /// The first complete listing ever: a branch that is neither alive nor dead was gone by then at the latest, or came and
    /// went since.
    pub first_listed: Timestamp,
    /// When the listing was begun that this is from, or the file written: what came later it can't tell of.
    pub listed: Timestamp,
}

/// A pull request, or a merge request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Its number.
    pub number: u64,
    /// The branch that is to be merged; a fork's has the name that it has there.
    pub branch: String,
    /// The commit that is to be merged.
    pub sha: String,
}

/// What is known of a repository's pull requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulls {
    /// All that are open.
    pub open: Vec<Pull>,
    /// Those that were closed or merged, and when: all of the last 90 days, and what is remembered of older ones.
    pub closed: Vec<(Pull, Timestamp)>,
    /// The first complete listing ever: one that is neither open nor closed was closed by then at the latest.
    pub first_listed: Timestamp,
    /// When the listing was begun that this is from: what came later it can't tell of.
    pub listed: Timestamp,
}

/// When a listing was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) begun: Timestamp,
    pub(super) ended: Timestamp,
}

/// A kind of knowledge that listings bring and events touch.
pub(super) trait Ledger:
    Clone + Default + Send + Sync + Serialize + serde::de::DeserializeOwned + 'static
{
    /// What a complete listing brings.
    type Listing: Send;
    /// What an event touches.
    type Key: Ord + Clone + Send;

    /// Takes a complete listing in. `during` are those that events said to be there while it was made.
    fn take(&mut self, listing: Self::Listing, during: &BTreeSet<Self::Key>, made: Made, most: usize);
}

fn first(first_listed: &mut Timestamp, made: Made) {
    if *first_listed == Timestamp::default() {
        *first_listed = made.ended;
    }
}

impl Ledger for Branches {
    type Listing = BTreeSet<String>;
    type Key = String;

    fn take(&mut self, mut listing: BTreeSet<String>, during: &BTreeSet<String>, made: Made, most: usize) {
        first(&mut self.first_listed, made);
        self.listed = made.begun;
        listing.extend(during.iter().cloned());
        let gone: Vec<String> = self.alive.difference(&listing).cloned().collect();
        for branch in gone {
            self.dead.entry(branch).or_insert(made.ended);
        }
        self.dead.retain(|branch, _| !listing.contains(branch));
        self.alive = listing;
        self.forget(most);
    }
}

impl Branches {
    /// A push says that it is there. Whether that is news.
    pub(super) fn pushed(&mut self, branch: &str) -> bool {
        let revived = self.dead.remove(branch).is_some();
        self.alive.insert(branch.to_owned()) || revived
    }

    /// An event says that it is gone. Whether that is news.
    pub(super) fn deleted(&mut self, branch: &str, now: Timestamp) -> bool {
        let known = self.alive.remove(branch);
        if known {
            self.dead.insert(branch.to_owned(), now);
        }
        known
    }

    /// Forgets those that have been gone the longest, beyond `most` in all. A forgotten one counts as gone since the first
    /// listing, so that is moved to when the youngest of them went: none looks as if it were gone for longer than it is.
    fn forget(&mut self, most: usize) {
        let room = most.saturating_sub(self.alive.len());
        let surplus = self.dead.len().saturating_sub(room);
        if surplus == 0 {
            return;
        }
        let mut by_age: Vec<(Timestamp, String)> = self.dead.iter().map(|(name, at)| (*at, name.clone())).collect();
        by_age.sort_unstable();
        for (at, name) in by_age.into_iter().take(surplus) {
            self.first_listed = self.first_listed.max(at);
            self.dead.remove(&name);
        }
    }
}

/// A complete listing of pull requests: all open ones, and those closed lately.
#[derive(Debug, Default)]
pub(super) struct PullListing {
    pub(super) open: BTreeMap<u64, Pull>,
    pub(super) closed: BTreeMap<u64, (Pull, Timestamp)>,
}

impl Ledger for Pulls {
    type Listing = PullListing;
    type Key = u64;

    fn take(&mut self, listing: PullListing, during: &BTreeSet<u64>, made: Made, most: usize) {
        first(&mut self.first_listed, made);
        self.listed = made.begun;
        let PullListing { mut open, closed: listed } = listing;
        let was_open = std::mem::take(&mut self.open).into_iter().map(|pull| (pull.number, pull));
        let mut closed: BTreeMap<u64, (Pull, Timestamp)> =
            std::mem::take(&mut self.closed).into_iter().map(|one| (one.0.number, one)).collect();
        for (number, pull) in was_open {
            if during.contains(&number) {
                open.entry(number).or_insert(pull);
            } else {
                // Where the listing has it no more, this is when it was missed first.
                closed.insert(number, (pull, made.ended));
            }
        }
        closed.extend(listed);
        closed.retain(|number, _| !open.contains_key(number));
        self.open = open.into_values().collect();
        self.closed = closed.into_values().collect();
        self.forget(most);
    }
}

impl Pulls {
    /// An event says that it is open, with this commit. Whether that is news.
    pub(super) fn opened(&mut self, pull: Pull) -> bool {
        self.closed.retain(|(closed, _)| closed.number != pull.number);
        match self.open.iter_mut().find(|open| open.number == pull.number) {
            Some(open) if *open == pull => false,
            Some(open) => {
                *open = pull;
                true
            }
            None => {
                self.open.push(pull);
                true
            }
        }
    }

    /// An event says that it is closed. Whether that is news.
    pub(super) fn ended(&mut self, pull: Pull, at: Timestamp) -> bool {
        let before = self.open.len();
        self.open.retain(|open| open.number != pull.number);
        let known = self.open.len() < before;
        if known {
            self.closed.push((pull, at));
        }
        known
    }

    /// Forgets those that were closed first, beyond `most` in all, as [`Branches::forget`] does.
    fn forget(&mut self, most: usize) {
        let room = most.saturating_sub(self.open.len());
        let surplus = self.closed.len().saturating_sub(room);
        if surplus == 0 {
            return;
        }
        self.closed.sort_unstable_by_key(|(_, at)| *at);
        for (_, at) in self.closed.drain(..surplus) {
            self.first_listed = self.first_listed.max(at);
        }
    }
}

#[cfg(test)]
mod tests;
