//! Which tags a policy speaks of, and what it reads from them.

use std::sync::Arc;

use crate::config::retention::CountBy;
use crate::config::retention::Policy;
use crate::config::retention::Select;
use crate::oci::Class;
use crate::oci::Tag;
use crate::pattern::Template;
use crate::pattern::Variables;
use crate::pattern::Version;

/// What a policy reads from a tag that it selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// The branches that it may be of, as the tag writes them; it is counted to the first.
    pub(super) branches: Vec<Arc<str>>,
    /// The pull request's number.
    pub(super) number: Option<u64>,
    /// The commit.
    pub(super) commit: Option<Box<str>>,
    /// What `newest` counts it to; none: its repository.
    pub(super) count: Option<Arc<str>>,
}

/// Reads a tag. None where the policy does not select it. `is_branch` tells whether the tag is written like a branch that is
/// known: then it is that branch's, whatever else it matches.
pub(super) fn read(
    policy: &Policy,
    captures: &Variables,
    tag: &Tag,
    class: Option<Class>,
    is_branch: impl Fn(&str) -> bool,
) -> Option<Reading> {
    let name = tag.as_str();
    if policy.except.iter().any(|glob| glob.matches(name)) {
        return None;
    }
    let mut selected = false;
    let mut found: Vec<Variables> = Vec::new();
    for select in &policy.select {
        let read = match select {
            Select::Template(template) => split(template, name),
            Select::Semver => Version::parse(name).map(|_| Variables::new()),
            Select::BuildCache => (class == Some(Class::BuildCache)).then(Variables::new),
            Select::All => Some(Variables::new()),
            Select::Untagged => None,
        };
        selected |= read.is_some();
        found.extend(read);
    }
    if !selected {
        return None;
    }
    let mut reading = Reading::default();
    if is_branch(name) {
        reading.branches.push(name.into());
    }
    for variables in &found {
        if let Some(branch) = variables.get("branch")
            && !reading.branches.iter().any(|known| **known == **branch)
        {
            reading.branches.push(branch.as_str().into());
        }
        let number = variables.get("number").and_then(|number| number.parse().ok());
        reading.number = reading.number.or(number);
        if reading.commit.is_none() {
            reading.commit = variables.get("sha").map(|sha| sha.as_str().into());
        }
    }
    reading.count = match &policy.count_by {
        CountBy::Repository => None,
        CountBy::Variable(name) if name == "branch" => reading.branches.first().cloned(),
        CountBy::Variable(name) => {
            let value = found.iter().find_map(|variables| variables.get(name)).or_else(|| captures.get(name));
            value.map(|value| value.as_str().into())
        }
    };
    Some(reading)
}

/// What a template reads from a tag. A template without variables is a tag itself.
fn split(template: &Template, tag: &str) -> Option<Variables> {
    if template.names().next().is_none() {
        return (template.as_str() == tag).then(Variables::new);
    }
    template.split(tag)
}
