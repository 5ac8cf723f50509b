//! The decision: from what is there, what is configured and what is known, what goes and what stays. Pure.
//!
//! A tag goes only if some policy selects it, no item of `keep` of any policy that selects it holds, nothing protects it, and
//! it was in the plan for the grace. What is not known keeps.

mod family;
mod keep;
pub mod known;
mod protect;
mod rank;
mod repository;
mod select;
pub mod verdict;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::config::retention::Policy;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::pattern::Glob;
use crate::pattern::Variables;

use super::records::Holding;
use super::sizes::Graph;

pub use known::Knowledge;
pub use protect::Protections;
pub use verdict::Doom;
pub use verdict::Names;
pub use verdict::Verdict;
pub use verdict::Why;

use repository::Work;

/// A repository that is there.
#[derive(Clone, Debug)]
pub struct Place {
    /// What it holds.
    pub holding: Holding,
    /// The patterns of its immutable tags.
    pub fixed: Arc<[Glob]>,
}

/// Since when things have been in the plan, by repository.
pub type First = HashMap<RepositoryKey, Firsts>;

/// The same of one repository, by tag or digest in writing.
pub type Firsts = BTreeMap<String, (Digest, Timestamp)>;

/// What is to be decided.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The time, before anything was looked at.
    pub now: Timestamp,
    /// The policies.
    pub policies: &'a [Policy],
    /// What is protected.
    pub protections: &'a Protections,
    /// What is there.
    pub places: &'a [Place],
    /// The manifests of `places`, in their order.
    pub graph: &'a Graph,
    /// What is known of branches and pull requests.
    pub knowledge: &'a Knowledge,
    /// Since when what is in the plan has been in it.
    pub first: &'a First,
}

/// What goes and what stays.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The repositories that some policy names.
    pub repositories: Vec<RepositoryPlan>,
    /// What each policy deletes.
    pub policies: Vec<PolicySum>,
    /// Which patterns of `protect` named anything.
    pub protected: Vec<bool>,
}

/// What becomes of what one repository holds.
#[derive(Clone, Debug)]
pub struct RepositoryPlan {
    /// Which of the places.
    pub place: usize,
    /// For each tag.
    pub tags: Vec<Verdict>,
    /// The branch that each tag is counted to, where one is read from it.
    pub branches: Vec<Option<Arc<str>>>,
    /// The untagged manifests that policies speak of, by their place in the holding.
    pub untagged: Vec<(usize, Verdict)>,
    /// The untagged manifests that nothing leads to and no policy speaks of, by their place in the holding.
    pub others: Vec<usize>,
    /// The untagged manifests that go along with something that goes, after it, by their place in the holding.
    pub along: Vec<(usize, Doom)>,
    /// What is in the plan, and since when.
    pub first: Firsts,
}

/// What a policy deletes, held against its `at_most`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicySum {
    /// The repositories that it names.
    pub repositories: u64,
    /// The tags and untagged manifests that it selects.
    pub selected: u64,
    /// Those of them that go.
    pub deletes: u64,
    /// All tags in its repositories, and where it selects `untagged` the untagged manifests.
    pub of: u64,
}

impl PolicySum {
    /// Whether this is more than the policy lets go in one run, and what it lets.
    pub fn exceeds(&self, policy: &Policy) -> bool {
        let share = self.deletes.saturating_mul(100) > self.of.saturating_mul(u64::from(policy.at_most.share));
        self.deletes > u64::from(policy.at_most.deletes) || share
    }
}

/// Which policies name a repository, each with what its pattern reads from the name.
pub fn naming<'a>(policies: &'a [Policy], name: &str) -> Vec<(u16, &'a Policy, Variables)> {
    // The file that policies stand in is too short for more of them.
    let numbered = (0..u16::MAX).zip(policies);
    let captured = |policy: &Policy| policy.repositories.iter().find_map(|pattern| pattern.captures(name));
    numbered.filter_map(|(number, policy)| Some((number, policy, captured(policy)?))).collect()
}

/// Decides.
pub fn plan(question: &Question<'_>) -> Plan {
    let mut plan = Plan {
        repositories: Vec::new(),
        policies: vec![PolicySum::default(); question.policies.len()],
        protected: vec![false; question.protections.configured.patterns.len()],
    };
    for (place, there) in question.places.iter().enumerate() {
        let name = there.holding.repository.to_string();
        let naming = naming(question.policies, &name);
        if naming.is_empty() {
            continue;
        }
        let work = Work::new(question, place, &name, naming);
        let decided = work.decide(&mut plan.policies, &mut plan.protected);
        plan.repositories.push(decided);
    }
    plan
}

#[cfg(test)]
mod tests;
