//! A policy: which tags of which repositories it speaks of, and what keeps one of them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::duration;
use crate::config::limits::positive;
use crate::config::size;
use crate::config::table::Table;
use crate::config::table::suggest;
use crate::config::value::Value;
use crate::config::views::tag_template;
use crate::pattern::Capture;
use crate::pattern::Glob;
use crate::pattern::Template;
use crate::pattern::capture::CaptureError;
use crate::pattern::template::TemplateError;

use super::host_of;

/// The longest name of a policy: it is a label of metrics.
const NAME_BYTES_MAX: usize = 64;

/// The variable that `newest` counts per and that branches are known by.
const BRANCH: &str = "branch";
/// The variable that pull requests are known by.
const NUMBER: &str = "number";

/// Which tags go when nothing keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What it is called.
    pub name: String,
    /// The repositories: hosted ones by their names, others with their host. Never empty.
    pub repositories: Vec<Capture>,
    /// The tags that it speaks of. Never empty.
    pub select: Vec<Select>,
    /// Those that it does not speak of, whatever `select` says.
    pub except: Vec<Glob>,
    /// What `newest` counts per.
    pub count_by: CountBy,
    /// What keeps a tag: any of these. Never empty.
    pub keep: Vec<Keep>,
    /// How long a tag is in the plan before it goes.
    pub grace: Duration,
    /// How much may go in one run.
    pub at_most: AtMost,
}

/// Which tags a policy speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// Those that the template makes.
    Template(Template),
    /// Versions: `1.2.3`, `v1.2.3-rc.1`.
    Semver,
    /// Manifests that no tag means and nothing needs.
    Untagged,
    /// Tags of build caches.
    BuildCache,
    /// Every tag.
    All,
}

/// What `newest` counts per.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CountBy {
    /// A variable of the template or of the repository's pattern; what lacks it is counted per repository.
    Variable(String),
    /// All of a repository together.
    Repository,
}

/// One item of `keep`: it holds where all of its conditions do. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// The conditions, in the order in which they are told.
    pub conditions: Vec<Condition>,
}

/// What a tag must be to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Among so many of the newest digests of its count.
    Newest(u32),
    /// Pushed so lately.
    PushedWithin(Duration),
    /// Pulled so lately.
    PulledWithin(Duration),
    /// Of a branch that lives.
    BranchAlive(BranchAlive),
    /// Of a pull request that is open.
    PullOpen(PullOpen),
    /// Called like that.
    Tags(Vec<Glob>),
    /// Among so many of the highest versions of its repository.
    NewestVersions(u32),
}

/// How it is known whether a branch lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchAlive {
    /// Who knows.
    pub from: BranchesFrom,
    /// How long a branch's tags stay after its end.
    pub then: Duration,
}

/// Who knows which branches live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BranchesFrom {
    /// A repository of a forge.
    Forge {
        /// A key of `forges`.
        forge: String,
        /// The repository there, made from what the policy's repository is called.
        repository: Template,
    },
    /// A file with the living branches, one a line.
    File(PathBuf),
}

/// How it is known whether a pull request is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullOpen {
    /// A key of `forges`.
    pub forge: String,
    /// The repository there, made from what the policy's repository is called.
    pub repository: Template,
    /// How long its tags stay after its end.
    pub then: Duration,
}

/// How much may go in one run; beyond it nothing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtMost {
    /// Tags and untagged manifests.
    pub deletes: u32,
    /// Their share of all tags in the policy's repositories, in percent.
    pub share: u8,
}

impl Default for AtMost {
    fn default() -> Self {
        Self { deletes: 500, share: 50 }
    }
}

pub(super) fn policies(value: &Value<'_>) -> Option<Vec<Policy>> {
    let mut policies: Vec<Policy> = Vec::new();
    for item in value.list()? {
        let Some(policy) = policy(&item) else { continue };
        if policies.iter().any(|other| other.name == policy.name) {
            item.problem(format!("there is a policy `{}` already; give each its own name", policy.name));
            continue;
        }
        policies.push(policy);
    }
    Some(policies)
}

fn policy(value: &Value<'_>) -> Option<Policy> {
    let mut table = value.table()?;
    let name = table.required("name", name);
    let repositories = table.required("repositories", |value| filled(value, "no repository", repository));
    let select = table.required("select", |value| filled(value, "no tag", select));
    let except = table.optional("except", Value::globs).unwrap_or_default();
    let given = table.get("count_by");
    let keep = keeps(&mut table);
    let mut grace = Duration::from_hours(24);
    table.set("grace", &mut grace, Value::duration);
    let mut at_most = AtMost::default();
    table.within("at_most", |table| at_most.read(table));
    table.close();
    let (repositories, select, keep) = (repositories?, select?, keep?);
    let count_by = match given {
        None => CountBy::Variable(BRANCH.to_owned()),
        Some(given) => count_by(&given, &select, &repositories)?,
    };
    let policy = Policy { name: name?, repositories, select, except, count_by, keep, grace, at_most };
    policy.check(value).then_some(policy)
}

/// A list that must have something in it.
fn filled<'a, T>(value: &Value<'a>, nothing: &str, read: impl Fn(&Value<'a>) -> Option<T>) -> Option<Vec<T>> {
    let items = value.one_or_list();
    if items.is_empty() {
        value.problem(format!("the list is empty: this policy would speak of {nothing}"));
        return None;
    }
    // One that is wrong makes the whole wrong: a policy with a part of its patterns is another policy.
    items.iter().map(read).collect::<Vec<_>>().into_iter().collect()
}

fn name(value: &Value<'_>) -> Option<String> {
    value.parsed(|text| {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
        if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(good) {
            return Err(format!("`{text}` is no name of a policy: it has 1 to 64 of a-z, 0-9, `-`, `_` and `.`"));
        }
        Ok(text.to_owned())
    })
}

fn repository(value: &Value<'_>) -> Option<Capture> {
    let pattern = value.parsed(|text| text.parse::<Capture>().map_err(|error: CaptureError| error.to_string()))?;
    if let Some(host) = host_of(pattern.as_str())
        && host.contains(['*', '?', '{'])
    {
        value.problem(format!("`{host}` is a pattern of hosts; write each registry out"));
        return None;
    }
    Some(pattern)
}

fn select(value: &Value<'_>) -> Option<Select> {
    let text = value.text()?;
    Some(match text.as_str() {
        "semver" => Select::Semver,
        "untagged" => Select::Untagged,
        "buildcache" => Select::BuildCache,
        "all" => Select::All,
        text if text.contains(['*', '?']) => {
            value.problem(format!(
                "`{text}` is a pattern, and select takes templates: write a name in braces for what varies, like pr-{{number}}"
            ));
            return None;
        }
        _ => Select::Template(tag_template(value)?),
    })
}

fn count_by(value: &Value<'_>, select: &[Select], repositories: &[Capture]) -> Option<CountBy> {
    let text = value.text()?;
    if text == "repository" {
        return Some(CountBy::Repository);
    }
    let mut known: Vec<&str> = select.iter().flat_map(Select::variables).collect();
    known.extend(repositories.iter().flat_map(Capture::names));
    known.push("repository");
    if !known.contains(&text.as_str()) {
        value.problem(format!("no template of select says what `{text}` is; {}", suggest(&text, &known)));
        return None;
    }
    Some(CountBy::Variable(text))
}

/// What keeps a tag. Without it everything that is selected would go.
fn keeps(table: &mut Table<'_>) -> Option<Vec<Keep>> {
    const NOTHING: &str = "nothing would be kept: a policy needs at least one item of keep, like { newest: 3 }";
    let Some(value) = table.get("keep") else {
        table.value().problem(format!("`keep` is missing: {NOTHING}"));
        return None;
    };
    let items = value.list()?;
    if items.is_empty() {
        value.problem(NOTHING);
        return None;
    }
    items.iter().map(keep).collect::<Vec<_>>().into_iter().collect()
}

fn keep(value: &Value<'_>) -> Option<Keep> {
    let mut table = value.table()?;
    let conditions = [
        table.optional("newest", Value::at_least_one).map(Condition::Newest),
        table.optional("pushed_within", positive).map(Condition::PushedWithin),
        table.optional("pulled_within", positive).map(Condition::PulledWithin),
        table.optional("branch_alive", branch_alive).map(Condition::BranchAlive),
        table.optional("pr_open", pull_open).map(Condition::PullOpen),
        table.optional("tags", |value| filled(value, "no tag", Value::glob)).map(Condition::Tags),
        table.optional("semver", newest_versions).map(Condition::NewestVersions),
    ];
    let names = table.names("").iter().filter(|(_, value)| !value.is_null()).count();
    table.close();
    let conditions: Vec<Condition> = conditions.into_iter().flatten().collect();
    if names == 0 {
        value.problem("an item of keep says what keeps a tag, like { newest: 3 } or { pushed_within: 7d }");
    }
    // What is wrong in it was said; with a condition less it would keep more, or without any everything.
    (names > 0 && conditions.len() == names).then_some(Keep { conditions })
}

fn branch_alive(value: &Value<'_>) -> Option<BranchAlive> {
    let mut table = value.table()?;
    let forge = table.optional("forge", Value::text);
    let repository = table.optional("repository", forge_repository);
    let file = table.optional("file", Value::path);
    let then = then(&mut table);
    table.close();
    let from = match (forge, repository, file) {
        (Some(forge), Some(repository), None) => BranchesFrom::Forge { forge, repository },
        (None, None, Some(file)) => BranchesFrom::File(file),
        _ => {
            value.problem("say who knows the branches: forge with repository, or file");
            return None;
        }
    };
    Some(BranchAlive { from, then })
}

fn pull_open(value: &Value<'_>) -> Option<PullOpen> {
    let mut table = value.table()?;
    let forge = table.required("forge", Value::text);
    let repository = table.required("repository", forge_repository);
    let then = then(&mut table);
    table.close();
    Some(PullOpen { forge: forge?, repository: repository?, then })
}

/// How long tags stay after the end of what they belong to.
fn then(table: &mut Table<'_>) -> Duration {
    let mut then = Duration::from_hours(24);
    table.set("then", &mut then, Value::duration);
    then
}

fn forge_repository(value: &Value<'_>) -> Option<Template> {
    value.parsed(|text| text.parse::<Template>().map_err(|error: TemplateError| error.to_string()))
}

fn newest_versions(value: &Value<'_>) -> Option<u32> {
    let mut table = value.table()?;
    let newest = table.required("newest", Value::at_least_one);
    table.close();
    newest
}

impl AtMost {
    fn read(&mut self, table: &mut Table<'_>) {
        table.set("deletes", &mut self.deletes, Value::at_least_one);
        table.set("share", &mut self.share, |value| value.parsed(size::percent));
    }
}

impl Policy {
    /// Whether what its parts say of each other fits; what can keep too much is a remark.
    fn check(&self, value: &Value<'_>) -> bool {
        let mut good = true;
        for condition in self.keep.iter().flat_map(|item| &item.conditions) {
            let (template, of) = match condition {
                Condition::BranchAlive(BranchAlive { from: BranchesFrom::Forge { repository, .. }, .. }) => {
                    (Some(repository), BRANCH)
                }
                Condition::BranchAlive(_) => (None, BRANCH),
                Condition::PullOpen(pulls) => (Some(&pulls.repository), NUMBER),
                _ => continue,
            };
            for name in template.into_iter().flat_map(Template::names) {
                for pattern in self.repositories.iter().filter(|pattern| !pattern.names().any(|known| known == name)) {
                    value.problem(format!(
                        "nothing says what `{{{name}}}` of the forge's repository is in `{pattern}`; name it there, like cache/{{{name}}}"
                    ));
                    good = false;
                }
            }
            for select in self.select.iter().filter(|select| !select.says(of)) {
                value.remark(format!(
                    "the policy {} asks for {}, and of what `{select}` selects nothing says which it is: all of it is kept",
                    self.name,
                    if of == BRANCH { "the branch" } else { "the pull request" },
                ));
            }
        }
        good
    }
}

impl Select {
    /// The variables that it reads from a tag.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let template = match self {
            Self::Template(template) => Some(template),
            Self::Semver | Self::Untagged | Self::BuildCache | Self::All => None,
        };
        template.into_iter().flat_map(Template::names)
    }

    /// Whether it can say which branch, or pull request, a tag is of. A pull request is known by its branch and commit too;
    /// and a tag without a template may be called like a branch.
    fn says(&self, variable: &str) -> bool {
        match self {
            Self::Template(_) if variable == BRANCH => self.variables().any(|name| name == BRANCH),
            Self::Template(_) => self.variables().any(|name| [NUMBER, BRANCH, "sha"].contains(&name)),
            Self::All | Self::BuildCache => variable == BRANCH,
            Self::Semver | Self::Untagged => false,
        }
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Template(template) => template.fmt(f),
            Self::Semver => f.write_str("semver"),
            Self::Untagged => f.write_str("untagged"),
            Self::BuildCache => f.write_str("buildcache"),
            Self::All => f.write_str("all"),
        }
    }
}

/// As it stands in the configuration: `newest: 3, pushed_within: 7d`.
impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, condition) in self.conditions.iter().enumerate() {
            write!(f, "{}{condition}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest(count) => write!(f, "newest: {count}"),
            Self::PushedWithin(within) => write!(f, "pushed_within: {}", duration::show(*within)),
            Self::PulledWithin(within) => write!(f, "pulled_within: {}", duration::show(*within)),
            Self::BranchAlive(_) => f.write_str("branch_alive"),
            Self::PullOpen(_) => f.write_str("pr_open"),
            Self::Tags(globs) => {
                let globs: Vec<&str> = globs.iter().map(Glob::as_str).collect();
                write!(f, "tags: [{}]", globs.join(", "))
            }
            Self::NewestVersions(count) => write!(f, "semver: {{ newest: {count} }}"),
        }
    }
}
