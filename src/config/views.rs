//! How long a pipeline's run sees the same, and which build cache stands in where a branch has none yet.

use std::time::Duration;

use crate::oci::Tag;
use crate::pattern::Glob;
use crate::pattern::Template;
use crate::pattern::template::TemplateError;

use super::limits::at_least;
use super::limits::positive;
use super::size;
use super::table::Table;
use super::table::suggest;
use super::value::Value;

/// The variables of fallbacks that are not read from the tag: the branch that a branch began at.
const FROM_FORGES: [&str; 1] = ["base"];

/// Run views.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs {
    /// How long a run lives from its last use.
    pub keep: Duration,
    /// The share of `store.max_size`, in percent, that runs may keep from eviction; beyond it the oldest lose that.
    pub max_share: u8,
}

impl Default for Runs {
    fn default() -> Self {
        Self { keep: Duration::from_hours(24), max_share: 25 }
    }
}

impl Runs {
    pub(super) fn read(&mut self, table: &mut Table<'_>) {
        table.set("keep", &mut self.keep, positive);
        table.set("max_share", &mut self.max_share, |value| value.parsed(size::percent));
    }
}

/// Hosted repositories that hold build caches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildCache {
    /// Their names.
    pub pattern: Glob,
    /// The form of their tags; it says what the variables of `fallback` are.
    pub tag: Template,
    /// The tags that stand in for one that is missing, in order; one with an unknown variable is skipped.
    pub fallback: Vec<Template>,
    /// The most bytes of one repository's build caches; beyond it those go that were imported longest ago.
    pub max_size_each: Option<u64>,
    /// How long a build cache stays that was replaced by a newer export.
    pub replaced_grace: Duration,
    /// How long a build cache stays after its last import, or its export where nobody imported it.
    pub keep_imported: Option<Duration>,
}

impl BuildCache {
    /// What `replaced_grace` is where nothing is said.
    pub const REPLACED_GRACE: Duration = Duration::from_hours(2);

    /// The variables of fallbacks that nothing knows yet.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        let read: Vec<&str> = self.tag.names().collect();
        self.fallback.iter().flat_map(Template::names).filter(move |name| !read.contains(name))
    }
}

pub(super) fn build_caches(value: &Value<'_>) -> Option<Vec<BuildCache>> {
    value.each(build_cache)
}

fn build_cache(value: &Value<'_>) -> Option<BuildCache> {
    let mut table = value.table()?;
    let pattern = table.required("match", hosted_pattern);
    let mut tag = "{branch|slug}".parse::<Template>().ok()?;
    table.set("tag", &mut tag, tag_template);
    let given = table.optional("fallback", Value::list).unwrap_or_default();
    let fallback = given.iter().filter_map(|item| fallback(item, &tag)).collect();
    let max_size_each = table.optional("max_size_each", |value| at_least(value, 1 << 20, "1MiB"));
    let mut replaced_grace = BuildCache::REPLACED_GRACE;
    table.set("replaced_grace", &mut replaced_grace, Value::duration);
    let keep_imported = table.optional("keep_imported", positive);
    table.close();
    Some(BuildCache { pattern: pattern?, tag, fallback, max_size_each, replaced_grace, keep_imported })
}

fn hosted_pattern(value: &Value<'_>) -> Option<Glob> {
    let glob = value.glob()?;
    let first = glob.as_str().split('/').next().unwrap_or_default();
    if first.contains(['.', ':']) {
        value.problem(format!("`{first}` is a host: build caches live here, under names of `hosted`, without a host"));
        return None;
    }
    Some(glob)
}

/// A template that makes tags.
pub(super) fn tag_template(value: &Value<'_>) -> Option<Template> {
    let template = value.parsed(|text| text.parse::<Template>().map_err(|error: TemplateError| error.to_string()))?;
    let whole = template.names().next().is_none();
    if template.literals().any(|text| text.contains(['/', ':', '@', '+']) || (whole && text.parse::<Tag>().is_err())) {
        value.problem(format!("`{template}` makes no tag: a tag has letters, digits, `_`, `.` and `-`"));
        return None;
    }
    Some(template)
}

fn fallback(value: &Value<'_>, tag: &Template) -> Option<Template> {
    let template = tag_template(value)?;
    let known: Vec<&str> = tag.names().chain(FROM_FORGES).collect();
    if let Some(unknown) = template.names().find(|name| !known.contains(name)) {
        value.problem(format!("nothing says what `{{{unknown}}}` is; {}", suggest(unknown, &known)));
        return None;
    }
    if template == *tag {
        value.remark("this is the tag that is missing: it never stands in for itself");
    }
    Some(template)
}
