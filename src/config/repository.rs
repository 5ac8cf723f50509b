//! Which repositories live here, and for how long a tag is fresh.

use std::sync::Arc;
use std::time::Duration;

use crate::pattern::Glob;

use super::value::Value;

/// Names that live here and take pushes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosted {
    /// The names, without a host.
    pub pattern: Glob,
    /// Tags that neither move nor go once they are pushed.
    pub immutable_tags: Arc<[Glob]>,
    /// How long a manifest stays whose last tag was moved to another.
    pub untagged_keep: Duration,
}

impl Hosted {
    /// What `untagged_keep` is where nothing is said.
    pub const UNTAGGED_KEEP: Duration = Duration::from_hours(168);

    /// All that have these names, with nothing else said of them.
    pub fn named(pattern: Glob) -> Self {
        Self { pattern, immutable_tags: Arc::default(), untagged_keep: Self::UNTAGGED_KEEP }
    }
}

/// One rule of freshness; the first that matches decides, and a window it leaves out has the upstream's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreshnessRule {
    /// Matched against `host/repository:tag`.
    pub pattern: Glob,
    /// Never asked for again: such tags do not move.
    pub immutable: bool,
    /// How long a tag is served without asking the upstream.
    pub fresh_for: Option<Duration>,
    /// How long after that it is served while the upstream is asked.
    pub stale_while_revalidate: Option<Duration>,
    /// How long after its last validation it is served while the upstream is unavailable.
    pub stale_if_error: Option<Duration>,
}

/// The rules, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// The configured ones, then `**:sha-*` as immutable.
    pub rules: Vec<FreshnessRule>,
}

/// The windows of one tag, in the words of RFC 9111 and RFC 5861.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Never asked for again.
    pub immutable: bool,
    /// How long a tag is served without asking the upstream.
    pub fresh_for: Duration,
    /// How long after that it is served while the upstream is asked.
    pub stale_while_revalidate: Duration,
    /// How long after its last validation it is served while the upstream is unavailable.
    pub stale_if_error: Duration,
}

impl Windows {
    /// The windows of an upstream's tags that no rule speaks of. With a credential a tag is asked for each time: a
    /// stage of a pipeline pushes straight to the registry, the next pulls through here, and a HEAD costs nothing.
    pub fn defaults(with_credential: bool) -> Self {
        let (fresh, stale) = if with_credential { (0, 0) } else { (60, 600) };
        Self {
            immutable: false,
            fresh_for: Duration::from_secs(fresh),
            stale_while_revalidate: Duration::from_secs(stale),
            stale_if_error: Duration::from_hours(720),
        }
    }
}

impl Freshness {
    /// The windows of a tag, given as the parts of `host/repository:tag`, of an upstream with or without a credential.
    pub fn windows(&self, name: &[&str], with_credential: bool) -> Windows {
        let default = Windows::defaults(with_credential);
        let Some(rule) = self.rules.iter().find(|rule| rule.pattern.matches_parts(name)) else { return default };
        Windows {
            immutable: rule.immutable,
            fresh_for: rule.fresh_for.unwrap_or(default.fresh_for),
            stale_while_revalidate: rule.stale_while_revalidate.unwrap_or(default.stale_while_revalidate),
            stale_if_error: rule.stale_if_error.unwrap_or(default.stale_if_error),
        }
    }
}

/// The pattern of a default; they are constants that parse.
fn built_in(pattern: &str) -> Option<Glob> {
    pattern.parse().ok()
}

/// What is hosted when nothing is said.
pub(super) fn default_hosted() -> Vec<Hosted> {
    built_in("cache/**").map(Hosted::named).into_iter().collect()
}

pub(super) fn hosted(value: &Value<'_>) -> Option<Vec<Hosted>> {
    value.each(|item| {
        if item.is_scalar() {
            return hosted_pattern(item).map(Hosted::named);
        }
        let mut table = item.table()?;
        let pattern = table.required("match", hosted_pattern);
        let immutable_tags = table.optional("immutable_tags", Value::globs).unwrap_or_default().into();
        let mut untagged_keep = Hosted::UNTAGGED_KEEP;
        table.set("untagged_keep", &mut untagged_keep, Value::duration);
        table.close();
        Some(Hosted { pattern: pattern?, immutable_tags, untagged_keep })
    })
}

fn hosted_pattern(value: &Value<'_>) -> Option<Glob> {
    let glob = value.glob()?;
    // Every name without a host would be ours, and nothing would come from the default upstream any more.
    if matches!(value.text()?.as_str(), "**" | "*" | "*/**" | "**/*") {
        value.problem("this would make every repository hosted, and no image would come from the default upstream");
        return None;
    }
    let first = value.text()?.split('/').next().unwrap_or_default().to_owned();
    if matches!(first.as_str(), "run" | "t") || first.contains('.') || first.contains(':') {
        value.problem(format!("`{first}` cannot begin a hosted name: it means a run, a token or a host"));
        return None;
    }
    Some(glob)
}

impl Default for Freshness {
    fn default() -> Self {
        Self { rules: default_rules() }
    }
}

fn default_rules() -> Vec<FreshnessRule> {
    let rule = |pattern| FreshnessRule {
        pattern,
        immutable: true,
        fresh_for: None,
        stale_while_revalidate: None,
        stale_if_error: None,
    };
    built_in("**:sha-*").map(rule).into_iter().collect()
}

pub(super) fn freshness(value: &Value<'_>) -> Option<Freshness> {
    let mut rules = value.each(rule)?;
    for default in default_rules() {
        if !rules.contains(&default) {
            rules.push(default);
        }
    }
    Some(Freshness { rules })
}

fn rule(value: &Value<'_>) -> Option<FreshnessRule> {
    let mut table = value.table()?;
    let pattern = table.required("match", tag_pattern);
    let mut immutable = false;
    table.set("immutable", &mut immutable, Value::flag);
    let fresh_for = table.optional("fresh_for", Value::duration);
    let stale_while_revalidate = table.optional("stale_while_revalidate", Value::duration);
    let stale_if_error = table.optional("stale_if_error", Value::duration);
    if immutable && (fresh_for.is_some() || stale_while_revalidate.is_some()) {
        value.remark("the tag is immutable: fresh_for and stale_while_revalidate have no effect");
    }
    table.close();
    Some(FreshnessRule { pattern: pattern?, immutable, fresh_for, stale_while_revalidate, stale_if_error })
}

fn tag_pattern(value: &Value<'_>) -> Option<Glob> {
    let text = value.text()?;
    if !text.contains('*') && !text.contains(':') {
        value.remark("matches no tag: the pattern is compared with host/repository:tag");
    }
    value.glob()
}
