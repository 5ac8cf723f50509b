//! Which digests are the newest of their count, and which versions the highest.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::pattern::Version;

/// Where something stands among its like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// So many are newer, and one: 1 is the newest.
    Nth(u32),
    /// It can't be told.
    Unknown,
}

/// Something that is counted: what it is counted to, when it was pushed, and what it means.
pub(super) struct Counted<'a> {
    pub(super) count: Option<&'a Arc<str>>,
    pub(super) pushed_at: Option<Timestamp>,
    pub(super) digest: Digest,
}

/// The rank of each. Digests are counted, each at its latest push; those that came at one moment have one rank, as nobody
/// could say which is newer. What was pushed at an unknown time takes nobody's place.
pub(super) fn newest(counted: &[Counted<'_>]) -> Vec<Rank> {
    let mut latest: HashMap<(Option<&Arc<str>>, Digest), Timestamp> = HashMap::with_capacity(counted.len());
    for one in counted {
        if let Some(at) = one.pushed_at {
            let known = latest.entry((one.count, one.digest)).or_insert(at);
            *known = at.max(*known);
        }
    }
    let mut times: HashMap<Option<&Arc<str>>, Vec<Timestamp>> = HashMap::new();
    for ((count, _), at) in &latest {
        times.entry(*count).or_default().push(*at);
    }
    for times in times.values_mut() {
        times.sort_unstable_by(|a, b| b.cmp(a));
    }
    let rank = |one: &Counted<'_>| {
        // A tag that itself came at an unknown time is as old as nobody knows, whatever else its digest is called.
        one.pushed_at?;
        let at = latest.get(&(one.count, one.digest))?;
        let newer = times.get(&one.count)?.partition_point(|other| other > at);
        u32::try_from(newer + 1).ok()
    };
    counted.iter().map(|one| rank(one).map_or(Rank::Unknown, Rank::Nth)).collect()
}

/// The rank of each version among the releases; what came before a release counts with it and takes no place itself. None for
/// what is no version.
pub(super) fn highest(tags: &[&str]) -> Vec<Option<u32>> {
    let versions: Vec<Option<Version>> = tags.iter().map(|tag| Version::parse(tag)).collect();
    let mut releases: Vec<&Version> = versions.iter().flatten().filter(|version| version.is_release()).collect();
    releases.sort_unstable_by(|a, b| b.cmp(a));
    releases.dedup();
    let rank = |version: &Version| {
        let higher = releases.partition_point(|release| *release > version);
        u32::try_from(higher + 1).unwrap_or(u32::MAX)
    };
    versions.iter().map(|version| version.as_ref().map(rank)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Given = (Option<Arc<str>>, Option<u64>, Digest);

    fn at(count: Option<&'static str>, pushed: Option<u64>, digest: &str) -> Given {
        (count.map(Arc::from), pushed, Digest::of(digest.as_bytes()))
    }

    fn ranks(given: &[Given]) -> Vec<Rank> {
        let counted: Vec<Counted<'_>> = given
            .iter()
            .map(|(count, pushed, digest)| Counted {
                count: count.as_ref(),
                pushed_at: pushed.map(Timestamp),
                digest: *digest,
            })
            .collect();
        newest(&counted)
    }

    #[test]
    fn digests_are_counted_per_branch_and_not_tags() {
        let given = [
            at(Some("a"), Some(1), "old"),
            at(Some("a"), Some(5), "new"),
            at(Some("a"), Some(4), "new"),
            at(Some("b"), Some(1), "old"),
        ];
        assert_eq!(ranks(&given), [Rank::Nth(2), Rank::Nth(1), Rank::Nth(1), Rank::Nth(1)]);
    }

    #[test]
    fn what_came_at_one_moment_has_one_rank_and_the_unknown_takes_no_place() {
        let given = [at(None, Some(5), "a"), at(None, Some(5), "b"), at(None, None, "c"), at(None, Some(1), "d")];
        assert_eq!(ranks(&given), [Rank::Nth(1), Rank::Nth(1), Rank::Unknown, Rank::Nth(3)]);
    }

    #[test]
    fn what_came_before_a_release_takes_no_place() {
        let ranks = highest(&["1.0.0", "1.1.0", "2.0.0-rc.1", "2.0.0-rc.2", "latest", "v1.1.0"]);
        assert_eq!(ranks, [Some(2), Some(1), Some(1), Some(1), None, Some(1)]);
    }
}
