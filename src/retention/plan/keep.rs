//! Whether an item of `keep` holds. What can't be told holds too, and is said to be so.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::retention::Condition;
use crate::config::retention::Keep;
use crate::config::retention::Policy;
use crate::oci::Tag;
use crate::pattern::Variables;

use crate::retention::records::Pulled;

use super::known;
use super::known::BranchBook;
use super::known::CLOSED_KNOWN_FOR;
use super::known::Knowledge;
use super::known::PullBook;
use super::known::PullStanding;
use super::known::Standing;
use super::rank::Rank;
use super::select::Reading;
use super::verdict::Because;
use super::verdict::Unknown;

/// What conditions are held against.
pub(super) struct Candidate<'a> {
    /// None for an untagged manifest.
    pub(super) tag: Option<&'a Tag>,
    pub(super) pushed_at: Option<Timestamp>,
    /// A moment when it was there already.
    pub(super) there_at: Option<Timestamp>,
    pub(super) used: Used,
    pub(super) reading: &'a Reading,
    pub(super) newest: Rank,
    pub(super) version: Option<u32>,
}

/// The last use of several things that count as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Used {
    /// A use that is known.
    last: Option<Timestamp>,
    /// After this there was none; none where that can't be said.
    none_since: Option<Timestamp>,
}

impl Used {
    /// Of all of these. None of them was used after the last of what is known of each.
    pub(super) fn of(all: impl IntoIterator<Item = Pulled>) -> Self {
        let mut used = Self { last: None, none_since: Some(Timestamp(0)) };
        for one in all {
            let (last, none_since) = match one {
                Pulled::At(at) => (Some(at), Some(at)),
                Pulled::NotSince(since) => (None, Some(since)),
                Pulled::Unknown => (None, None),
            };
            used.last = used.last.max(last);
            used.none_since = used.none_since.zip(none_since).map(|(a, b)| a.max(b));
        }
        used
    }

    /// Of what either counts.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            last: self.last.max(other.last),
            none_since: self.none_since.zip(other.none_since).map(|(a, b)| a.max(b)),
        }
    }
}

/// Who knows what the conditions of a policy ask for, in one repository.
pub(super) struct Sources<'a> {
    /// By item and condition.
    asked: Vec<Vec<Asked<'a>>>,
}

enum Asked<'a> {
    Nobody,
    Branches(Result<&'a BranchBook, Unknown>),
    Pulls(Result<&'a PullBook, Unknown>),
}

impl<'a> Sources<'a> {
    pub(super) fn of(policy: &Policy, captures: &Variables, knowledge: &'a Knowledge) -> Self {
        let never = || Unknown::Answer("nobody was asked".into());
        let ask = |condition: &Condition| match condition {
            Condition::BranchAlive(alive) => Asked::Branches(match known::branches_of(alive, captures) {
                None => Err(Unknown::Mapping),
                Some(source) => match knowledge.branches.get(&source) {
                    Some(Ok(book)) => Ok(book),
                    Some(Err(why)) => Err(Unknown::Answer(Arc::clone(why))),
                    None => Err(never()),
                },
            }),
            Condition::PullOpen(open) => Asked::Pulls(match known::pulls_of(open, captures) {
                None => Err(Unknown::Mapping),
                Some(source) => match knowledge.pulls.get(&source) {
                    Some(Ok(book)) => Ok(book),
                    Some(Err(why)) => Err(Unknown::Answer(Arc::clone(why))),
                    None => Err(never()),
                },
            }),
            _ => Asked::Nobody,
        };
        Self { asked: policy.keep.iter().map(|item| item.conditions.iter().map(ask).collect()).collect() }
    }

    /// Every list of branches.
    pub(super) fn books(&self) -> impl Iterator<Item = &'a BranchBook> {
        self.asked.iter().flatten().filter_map(|asked| match asked {
            Asked::Branches(Ok(book)) => Some(*book),
            Asked::Branches(Err(_)) | Asked::Pulls(_) | Asked::Nobody => None,
        })
    }
}

/// The first item that holds, with how; one that holds only for want of knowledge where none holds else.
pub(super) fn kept(
    policy: &Policy,
    sources: &Sources<'_>,
    candidate: &Candidate<'_>,
    now: Timestamp,
) -> Option<(u16, Box<[Because]>)> {
    let mut doubtful = None;
    for (number, (item, asked)) in policy.keep.iter().zip(&sources.asked).enumerate() {
        let Some(because) = holds(item, asked, candidate, now) else { continue };
        // A policy has a handful of items.
        let found = (u16::try_from(number).unwrap_or(u16::MAX), because);
        if !found.1.iter().any(|one| matches!(one, Because::Unknown(_))) {
            return Some(found);
        }
        doubtful = doubtful.or(Some(found));
    }
    doubtful
}

/// How the conditions of an item are met; none where one is not.
fn holds(item: &Keep, asked: &[Asked<'_>], candidate: &Candidate<'_>, now: Timestamp) -> Option<Box<[Because]>> {
    item.conditions.iter().zip(asked).map(|(condition, asked)| candidate.meets(condition, asked, now)).collect()
}

impl Candidate<'_> {
    fn meets(&self, condition: &Condition, asked: &Asked<'_>, now: Timestamp) -> Option<Because> {
        match (condition, asked) {
            (Condition::Newest(count), _) => match self.newest {
                Rank::Nth(rank) => (rank <= *count).then(|| Because::Newest { rank, of: self.reading.count.clone() }),
                Rank::Unknown => Some(Because::Unknown(Unknown::PushTime)),
            },
            (Condition::PushedWithin(within), _) => match self.pushed_at {
                Some(at) => (now.since(at) < *within).then_some(Because::Pushed(at)),
                None => Some(Because::Unknown(Unknown::PushTime)),
            },
            (Condition::PulledWithin(within), _) => self.pulled(*within, now),
            (Condition::BranchAlive(alive), Asked::Branches(Ok(book))) => self.branch(book, alive.then, now),
            (Condition::PullOpen(open), Asked::Pulls(Ok(book))) => self.pull(book, open.then, now),
            (Condition::BranchAlive(_), Asked::Branches(Err(why)))
            | (Condition::PullOpen(_), Asked::Pulls(Err(why))) => Some(Because::Unknown(why.clone())),
            (Condition::BranchAlive(_), _) => Some(Because::Unknown(Unknown::Branch)),
            (Condition::PullOpen(_), _) => Some(Because::Unknown(Unknown::Pull)),
            (Condition::Tags(globs), _) => {
                let called = self.tag.is_some_and(|tag| globs.iter().any(|glob| glob.matches(tag.as_str())));
                called.then_some(Because::Called)
            }
            (Condition::NewestVersions(count), _) => {
                self.version.filter(|rank| rank <= count).map(|rank| Because::Version { rank })
            }
        }
    }

    fn pulled(&self, within: Duration, now: Timestamp) -> Option<Because> {
        let lately = |at: Timestamp| now.since(at) < within;
        if let Some(at) = self.used.last.filter(|at| lately(*at)) {
            return Some(Because::Pulled(at));
        }
        // What was pushed just now had no time to be pulled.
        if let Some(at) = self.pushed_at.filter(|at| lately(*at)) {
            return Some(Because::Pushed(at));
        }
        match self.used.none_since {
            Some(since) if !lately(since) => None,
            _ => Some(Because::Unknown(Unknown::PullTime)),
        }
    }

    /// Every branch that it may be of must be gone.
    fn branch(&self, book: &BranchBook, then: Duration, now: Timestamp) -> Option<Because> {
        let mut until = Timestamp(0);
        for branch in &self.reading.branches {
            match book.standing(branch) {
                Standing::Alive(name) => return Some(Because::Branch(name)),
                Standing::Gone(since) => until = until.max(self.end(since, then)),
            }
        }
        if self.reading.branches.is_empty() {
            return Some(Because::Unknown(Unknown::Branch));
        }
        if !self.is_told_by(book.listed, now) {
            return Some(Because::Unknown(Unknown::Later));
        }
        (now < until).then_some(Because::BranchEnded { until })
    }

    fn pull(&self, book: &PullBook, then: Duration, now: Timestamp) -> Option<Because> {
        let standing = match (self.reading.number, self.reading.branches.first(), &self.reading.commit) {
            (Some(number), _, _) => book.by_number(number),
            (None, Some(_), _) => self.pull_of_branches(book),
            (None, None, Some(commit)) => book.by_commit(commit),
            (None, None, None) => PullStanding::Unknown,
        };
        let closed = match standing {
            PullStanding::Open(number) => return Some(Because::Pull(number)),
            PullStanding::Unknown => return Some(Because::Unknown(Unknown::Pull)),
            PullStanding::Closed(at) => at,
            PullStanding::ClosedLongAgo => Timestamp(now.0.saturating_sub(millis(CLOSED_KNOWN_FOR))),
        };
        if !self.is_told_by(book.listed, now) {
            return Some(Because::Unknown(Unknown::Later));
        }
        let until = self.end(closed, then);
        (now < until).then_some(Because::PullEnded { until })
    }

    fn pull_of_branches(&self, book: &PullBook) -> PullStanding {
        let mut last = PullStanding::ClosedLongAgo;
        for branch in &self.reading.branches {
            match (book.by_branch(branch), last) {
                (open @ PullStanding::Open(_), _) => return open,
                (PullStanding::Closed(at), PullStanding::Closed(known)) => last = PullStanding::Closed(at.max(known)),
                (closed @ PullStanding::Closed(_), _) => last = closed,
                _ => {}
            }
        }
        last
    }

    /// Whether a list that was begun at `listed` can tell of the end of what it belongs to. What was pushed later may belong to
    /// something that was not there then. `now` is before anything was looked at.
    fn is_told_by(&self, listed: Timestamp, now: Timestamp) -> bool {
        listed >= now || self.there_at.is_some_and(|at| at < listed)
    }

    /// When what belonged to something that ended `since` then goes: what was pushed later counts from its push.
    fn end(&self, since: Timestamp, then: Duration) -> Timestamp {
        self.pushed_at.map_or(since, |at| at.max(since)).after(then)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
