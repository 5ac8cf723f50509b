//! What is known of branches and pull requests. What is not known is said to be so: it keeps.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::retention::BranchAlive;
use crate::config::retention::BranchesFrom;
use crate::config::retention::Condition;
use crate::config::retention::Policy;
use crate::config::retention::PullOpen;
use crate::pattern::Variables;
use crate::pattern::template::ref_slug;
use crate::pattern::template::slug;

/// Pull requests that were closed longer ago need not be known one by one.
pub const CLOSED_KNOWN_FOR: Duration = Duration::from_hours(90 * 24);

/// From this length on a tag's branch may be cut short: it counts as every living branch that begins so.
const CUT_BYTES_MIN: usize = 40;

/// Who knows branches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BranchSource {
    /// A repository of a forge.
    Forge(ForgeRepository),
    /// A file.
    File(PathBuf),
}

/// A repository of a forge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForgeRepository {
    /// A key of `forges`.
    pub forge: String,
    /// Its name there.
    pub repository: String,
}

/// What has to be asked before a plan can be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Whose branches.
    pub branches: BTreeSet<BranchSource>,
    /// Whose pull requests.
    pub pulls: BTreeSet<ForgeRepository>,
}

impl Wanted {
    /// Adds what a policy asks for where its repository is called so.
    pub fn add(&mut self, policy: &Policy, captures: &Variables) {
        for condition in policy.keep.iter().flat_map(|item| &item.conditions) {
            match condition {
                Condition::BranchAlive(alive) => self.branches.extend(branches_of(alive, captures)),
                Condition::PullOpen(open) => self.pulls.extend(pulls_of(open, captures)),
                _ => {}
            }
        }
    }
}

/// Who knows the branches; none where a name is missing.
pub(super) fn branches_of(alive: &BranchAlive, captures: &Variables) -> Option<BranchSource> {
    Some(match &alive.from {
        BranchesFrom::Forge { forge, repository } => {
            BranchSource::Forge(ForgeRepository { forge: forge.clone(), repository: repository.render(captures)? })
        }
        BranchesFrom::File(path) => BranchSource::File(path.clone()),
    })
}

/// Who knows the pull requests; none where a name is missing.
pub(super) fn pulls_of(open: &PullOpen, captures: &Variables) -> Option<ForgeRepository> {
    Some(ForgeRepository { forge: open.forge.clone(), repository: open.repository.render(captures)? })
}

/// What was answered, by whom; where nobody could, why.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// Branches.
    pub branches: HashMap<BranchSource, Result<BranchBook, Arc<str>>>,
    /// Pull requests.
    pub pulls: HashMap<ForgeRepository, Result<PullBook, Arc<str>>>,
}

impl Knowledge {
    /// The same as it would have been told at an earlier time, as far as that is known: what ended since was not over.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Self {
        let branches =
            self.branches.iter().map(|(of, book)| (of.clone(), book.as_ref().map(|b| b.at(now)).map_err(Arc::clone)));
        let pulls =
            self.pulls.iter().map(|(of, book)| (of.clone(), book.as_ref().map(|b| b.at(now)).map_err(Arc::clone)));
        Self { branches: branches.collect(), pulls: pulls.collect() }
    }
}

/// The branches of one repository: a complete list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchBook {
    /// By all the ways in which a tag may write a branch, in lower case. Two branches that are written alike keep each other's
    /// tags.
    by_slug: BTreeMap<String, Standing>,
    first_listed: Timestamp,
    /// When the list was begun: what came later it can't tell of.
    pub(super) listed: Timestamp,
}

/// Whether a branch lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Alive(Arc<str>),
    /// It has not since then.
    Gone(Timestamp),
}

impl BranchBook {
    /// The book of a complete list. `dead` are those that were there before, with the times of their ends; what is in neither
    /// was not there at `first_listed`, the time of the first complete list ever; this one was begun at `listed`.
    pub fn new<'a>(
        alive: impl IntoIterator<Item = &'a str>,
        dead: impl IntoIterator<Item = (&'a str, Timestamp)>,
        first_listed: Timestamp,
        listed: Timestamp,
    ) -> Self {
        let mut by_slug: BTreeMap<String, Standing> = BTreeMap::new();
        for (branch, since) in dead {
            for slug in written(branch) {
                let known = by_slug.entry(slug).or_insert(Standing::Gone(since));
                if let Standing::Gone(at) = known {
                    *at = since.max(*at);
                }
            }
        }
        for branch in alive {
            let name: Arc<str> = branch.into();
            for slug in written(branch) {
                by_slug.insert(slug, Standing::Alive(Arc::clone(&name)));
            }
        }
        Self { by_slug, first_listed, listed }
    }

    fn at(&self, now: Timestamp) -> Self {
        let standing = |(slug, standing): (&String, &Standing)| match standing {
            Standing::Gone(since) if *since > now => (slug.clone(), Standing::Alive(slug.as_str().into())),
            other => (slug.clone(), other.clone()),
        };
        Self { by_slug: self.by_slug.iter().map(standing).collect(), ..self.clone() }
    }

    /// Whether some branch, living or dead, is written like this tag.
    pub fn knows(&self, tag: &str) -> bool {
        self.by_slug.contains_key(&tag.to_lowercase())
    }

    /// Whether a branch that is written so lives.
    pub fn standing(&self, written: &str) -> Standing {
        let written = written.to_lowercase();
        let exact = self.by_slug.get(&written);
        if let Some(alive @ Standing::Alive(_)) = exact {
            return alive.clone();
        }
        if written.len() >= CUT_BYTES_MIN {
            let longer = self.by_slug.range(written.clone()..).take_while(|(slug, _)| slug.starts_with(&written));
            if let Some((_, alive)) = longer.into_iter().find(|(_, standing)| matches!(standing, Standing::Alive(_))) {
                return alive.clone();
            }
        }
        exact.cloned().unwrap_or(Standing::Gone(self.first_listed))
    }
}

/// The ways in which a tag may write a branch.
fn written(branch: &str) -> BTreeSet<String> {
    let ways = [branch.to_lowercase(), slug(branch).to_lowercase(), ref_slug(branch)];
    ways.into_iter().filter(|way| !way.is_empty()).collect()
}

/// The pull requests of one repository: all open ones, and those that were closed in the last [`CLOSED_KNOWN_FOR`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullBook {
    open: BTreeSet<u64>,
    open_branches: HashMap<String, u64>,
    open_commits: BTreeMap<String, u64>,
    closed: HashMap<u64, Timestamp>,
    closed_branches: HashMap<String, Timestamp>,
    highest: u64,
    pub(super) listed: Timestamp,
}

/// Whether a pull request is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullStanding {
    /// It is, under this number.
    Open(u64),
    /// It has been closed since then.
    Closed(Timestamp),
    /// It was closed longer ago than is known one by one.
    ClosedLongAgo,
    /// There is none, or it is not known.
    Unknown,
}

impl PullBook {
    /// An empty book of a list that was begun then.
    pub fn new(listed: Timestamp) -> Self {
        Self { listed, ..Self::default() }
    }

    fn at(&self, now: Timestamp) -> Self {
        let mut book = self.clone();
        for (number, _) in self.closed.iter().filter(|(_, at)| **at > now) {
            book.closed.remove(number);
            book.open.insert(*number);
        }
        for (slug, _) in self.closed_branches.iter().filter(|(_, at)| **at > now) {
            // Which one it was is not told anywhere.
            book.open_branches.entry(slug.clone()).or_default();
        }
        book
    }

    /// Adds one that is open.
    pub fn add_open(&mut self, number: u64, branch: &str, commit: &str) {
        self.open.insert(number);
        self.open_branches.extend(written(branch).into_iter().map(|slug| (slug, number)));
        self.open_commits.insert(commit.to_lowercase(), number);
        self.highest = self.highest.max(number);
    }

    /// Adds one that was closed or merged.
    pub fn add_closed(&mut self, number: u64, branch: &str, at: Timestamp) {
        self.closed.insert(number, at);
        for slug in written(branch) {
            let known = self.closed_branches.entry(slug).or_insert(at);
            *known = at.max(*known);
        }
        self.highest = self.highest.max(number);
    }

    /// Of the pull request with this number.
    pub fn by_number(&self, number: u64) -> PullStanding {
        match self.closed.get(&number) {
            _ if self.open.contains(&number) => PullStanding::Open(number),
            Some(at) => PullStanding::Closed(*at),
            // Its number was given before others that are known.
            None if number < self.highest => PullStanding::ClosedLongAgo,
            None => PullStanding::Unknown,
        }
    }

    /// Of a pull request from a branch that is written so.
    pub fn by_branch(&self, written: &str) -> PullStanding {
        let written = written.to_lowercase();
        match (self.open_branches.get(&written), self.closed_branches.get(&written)) {
            (Some(number), _) => PullStanding::Open(*number),
            (None, Some(at)) => PullStanding::Closed(*at),
            (None, None) => PullStanding::ClosedLongAgo,
        }
    }

    /// Of a pull request with this commit, or one that begins so, at its head. Which earlier commits it had is not known.
    pub fn by_commit(&self, commit: &str) -> PullStanding {
        let commit = commit.to_lowercase();
        match self.open_commits.range(commit.clone()..).next() {
            Some((head, number)) if head.starts_with(&commit) => PullStanding::Open(*number),
            _ => PullStanding::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_that_are_written_alike_keep_each_other() {
        let dead = [("feature-a", Timestamp(5)), ("old/x", Timestamp(7)), ("old-x", Timestamp(9))];
        let book = BranchBook::new(["feature/a", "Main"], dead, Timestamp(1), Timestamp(9));
        assert_eq!(book.standing("feature-a"), Standing::Alive("feature/a".into()));
        assert_eq!(book.standing("main"), Standing::Alive("Main".into()));
        assert_eq!(book.standing("old-x"), Standing::Gone(Timestamp(9)), "the later end counts");
        assert_eq!(book.standing("never"), Standing::Gone(Timestamp(1)));
        assert!(book.knows("OLD-X") && !book.knows("never"));
    }

    #[test]
    fn a_branch_that_was_cut_short_counts_as_those_that_begin_so() {
        let long = format!("feature/{}", "x".repeat(80));
        let book = BranchBook::new([long.as_str()], [], Timestamp(1), Timestamp(9));
        assert_eq!(book.standing(&format!("feature-{}", "x".repeat(50))), Standing::Alive(long.as_str().into()));
        assert_eq!(book.standing("feature-x"), Standing::Gone(Timestamp(1)), "a short one is whole");
    }

    #[test]
    fn what_ended_since_was_not_over_then() {
        let dead = [("old", Timestamp(5)), ("older", Timestamp(3))];
        let branches = BranchBook::new(["main"], dead, Timestamp(1), Timestamp(9)).at(Timestamp(4));
        assert_eq!(branches.standing("old"), Standing::Alive("old".into()));
        assert_eq!(branches.standing("older"), Standing::Gone(Timestamp(3)));
        let mut pulls = PullBook::new(Timestamp(9));
        pulls.add_closed(1, "old", Timestamp(5));
        pulls.add_closed(2, "older", Timestamp(3));
        let pulls = pulls.at(Timestamp(4));
        assert_eq!(pulls.by_number(1), PullStanding::Open(1));
        assert_eq!(pulls.by_number(2), PullStanding::Closed(Timestamp(3)));
        assert!(matches!(pulls.by_branch("old"), PullStanding::Open(_)));
        assert_eq!(pulls.by_branch("older"), PullStanding::Closed(Timestamp(3)));
    }

    #[test]
    fn a_pull_request_is_known_by_number_branch_and_head() {
        let mut book = PullBook::new(Timestamp(9));
        book.add_open(12, "fix/a", "abcdef0123456789");
        book.add_closed(11, "fix/b", Timestamp(5));
        assert_eq!(book.by_number(12), PullStanding::Open(12));
        assert_eq!(book.by_number(11), PullStanding::Closed(Timestamp(5)));
        assert_eq!(book.by_number(3), PullStanding::ClosedLongAgo);
        assert_eq!(book.by_number(13), PullStanding::Unknown, "it may have been opened since");
        assert_eq!(book.by_branch("fix-a"), PullStanding::Open(12));
        assert_eq!(book.by_branch("fix-b"), PullStanding::Closed(Timestamp(5)));
        assert_eq!(book.by_commit("abcdef0"), PullStanding::Open(12));
        assert_eq!(book.by_commit("abcdef1"), PullStanding::Unknown);
    }
}
