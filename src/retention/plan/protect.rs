//! What stays whatever policies say: patterns, what is in use, tags that are immutable.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::config::retention::Protect;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::pattern::Glob;

use super::Place;
use super::verdict::Why;

/// What is protected.
#[derive(Clone, Debug, Default)]
pub struct Protections {
    /// The configured patterns, and the files that were read.
    pub configured: Protect,
    /// What is in use by its tag.
    pub tags: HashSet<(RepositoryKey, Tag)>,
    /// What is in use by its digest, in whatever repository: who uses it may have it by another name.
    pub digests: HashSet<Digest>,
}

/// What is protected in one repository.
pub(super) struct Shield<'a> {
    of: &'a Protections,
    repository: &'a RepositoryKey,
    name: &'a str,
    fixed: &'a [Glob],
    /// For each manifest, whether it or something that it needs is in use.
    used: Vec<bool>,
}

impl<'a> Shield<'a> {
    pub(super) fn of(protections: &'a Protections, place: &'a Place, name: &'a str) -> Self {
        let holding = &place.holding;
        let mut shield =
            Self { of: protections, repository: &holding.repository, name, fixed: &place.fixed, used: Vec::new() };
        let manifests = &holding.manifests;
        if !protections.digests.is_empty() {
            let mut used: HashSet<Digest> = HashSet::new();
            let mut parents: HashMap<&Digest, Vec<&Digest>> = HashMap::new();
            for one in manifests {
                one.children.iter().for_each(|child| parents.entry(child).or_default().push(&one.digest));
            }
            // What needs something that is in use is in use.
            let mut next: Vec<&Digest> = manifests.iter().map(|one| &one.digest).collect();
            next.retain(|digest| protections.digests.contains(*digest));
            while let Some(digest) = next.pop() {
                if used.insert(*digest) {
                    next.extend(parents.get(digest).into_iter().flatten());
                }
            }
            shield.used = manifests.iter().map(|one| used.contains(&one.digest)).collect();
        }
        shield
    }

    /// What protects a tag; `manifest` is the place of what it means.
    pub(super) fn tag(&self, tag: &Tag, manifest: Option<usize>, hits: &mut [bool]) -> Option<Why> {
        let name = [self.name, ":", tag.as_str()];
        let in_use = self.in_use(manifest) || self.of.tags.contains(&(self.repository.clone(), tag.clone()));
        let protected = self.pattern(&name, hits);
        protected.or(in_use.then_some(Why::InUse)).or_else(|| {
            let fixed = self.fixed.iter().any(|glob| glob.matches(tag.as_str()));
            fixed.then_some(Why::Immutable)
        })
    }

    /// What protects an untagged manifest.
    pub(super) fn untagged(&self, digest: &Digest, manifest: usize, hits: &mut [bool]) -> Option<Why> {
        let protected = self.pattern(&[self.name, "@", &digest.to_string()], hits);
        protected.or(self.in_use(Some(manifest)).then_some(Why::InUse))
    }

    /// The first pattern that names it; all that do are marked.
    fn pattern(&self, name: &[&str], hits: &mut [bool]) -> Option<Why> {
        let mut first = None;
        for (number, (glob, hit)) in self.of.configured.patterns.iter().zip(hits).enumerate() {
            if glob.matches_parts(name) {
                *hit = true;
                first = first.or(Some(Why::Protected(u16::try_from(number).unwrap_or(u16::MAX))));
            }
        }
        first
    }

    fn in_use(&self, manifest: Option<usize>) -> bool {
        manifest.and_then(|at| self.used.get(at)).copied().unwrap_or(false)
    }
}
