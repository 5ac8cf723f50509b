//! What goes and what stays: policies over tags, what is protected from them, and what storage costs.

mod policy;
mod price;
pub mod remote;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::pattern::Glob;
use crate::schedule::Schedule;
use crate::schedule::TimeZoneName;

use super::limits::positive;
use super::table::Table;
use super::value::Value;

pub use policy::AtMost;
pub use policy::BranchAlive;
pub use policy::BranchesFrom;
pub use policy::Condition;
pub use policy::CountBy;
pub use policy::Keep;
pub use policy::Policy;
pub use policy::PullOpen;
pub use policy::Select;
pub use price::Money;
pub use price::Price;
pub use remote::Adapter;
pub use remote::Remote;
pub use remote::RemoteLimits;

/// The host in front of a repository's name or pattern, where there is one: a first part with a dot or a colon, or
/// `localhost`.
pub fn host_of(name: &str) -> Option<&str> {
    let (first, _) = name.split_once('/')?;
    (first.contains(['.', ':']) || first == "localhost").then_some(first)
}

/// How old the list of what is in use may be, where nothing is said.
const REFS_AGE_MAX: Duration = Duration::from_hours(2);

/// Retention.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// What scheduled runs do.
    pub mode: Mode,
    /// When they are; none: only when asked.
    pub schedule: Option<Schedule>,
    /// What hosted bytes cost; a remote registry has its own.
    pub price: Price,
    /// What goes, in order: the first policy that selects a tag names it.
    pub policies: Vec<Policy>,
    /// What stays whatever policies say.
    pub protect: Protect,
    /// The registries in which policies may delete, by the host as it stands in image names.
    pub remotes: BTreeMap<String, Remote>,
}

/// What scheduled runs do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// They say what would go.
    #[default]
    Report,
    /// They delete it, within each policy's `at_most`.
    Apply,
}

/// What stays whatever policies say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protect {
    /// Matched against `repository:tag`, with the host of a remote registry in front.
    pub patterns: Vec<Glob>,
    /// Lists of what is in use. While one of them can't be read, or is older than it may be, nothing is deleted.
    pub files: Vec<RefsFile>,
}

/// A file with the references that are in use, one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefsFile {
    /// Where it is; it is read anew for each plan.
    pub path: PathBuf,
    /// How old it may be.
    pub max_age: Duration,
}

impl Retention {
    pub(super) fn read(&mut self, table: &mut Table<'_>, zone: &TimeZoneName) {
        table.set("mode", &mut self.mode, |value| value.word(&[("report", Mode::Report), ("apply", Mode::Apply)]));
        self.schedule = table.optional("schedule", |value| value.parsed(|text| Schedule::parse(text, zone)));
        table.within("price", |table| self.price.read(table));
        table.set("policies", &mut self.policies, policy::policies);
        table.set("protect", &mut self.protect, protect);
        table.set("remotes", &mut self.remotes, remote::read);
    }
}

fn protect(value: &Value<'_>) -> Option<Protect> {
    let mut protect = Protect::default();
    for item in value.list()? {
        if item.is_scalar() {
            protect.patterns.extend(tag_pattern(&item));
            continue;
        }
        let Some(mut table) = item.table() else { continue };
        let path = table.required("refs_file", Value::path);
        let mut max_age = REFS_AGE_MAX;
        table.set("max_age", &mut max_age, positive);
        table.close();
        protect.files.extend(path.map(|path| RefsFile { path, max_age }));
    }
    Some(protect)
}

/// A pattern over `repository:tag`.
fn tag_pattern(value: &Value<'_>) -> Option<Glob> {
    let glob = value.glob()?;
    if !glob.as_str().contains(':') && !glob.as_str().ends_with("**") {
        value.problem(format!(
            "`{glob}` protects no tag: the pattern is compared with repository:tag; write {glob}:* for all tags of \
             {glob}, or **:{glob} for the tag in every repository"
        ));
        return None;
    }
    Some(glob)
}
