//! Who is known, and what they may do.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::pattern::Glob;

use super::secret::Contents;
use super::table::Table;
use super::upstream::network;
use super::value::Value;

/// What may be done to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Read manifests, blobs, tags and referrers.
    Pull,
    /// Write them.
    Push,
    /// Remove them.
    Delete,
}

impl Action {
    /// The word for it in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }
}

/// Who is known, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// What anybody may do with every repository. Without an `access` section: everything while every listen address
    /// is loopback, else nothing.
    pub anonymous: Vec<Action>,
    /// Networks by name, for `net:<name>` in rules.
    pub networks: BTreeMap<String, Vec<IpNet>>,
    /// Users and their bcrypt hashes.
    pub htpasswd: Option<Contents>,
    /// Who may do what; any rule that allows it suffices.
    pub rules: Vec<Rule>,
    /// What each principal may take.
    pub limits: PerPrincipal,
}

/// What each principal may take; all who did not say who they are, are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerPrincipal {
    /// Uploads open at the same time; beyond it 429 with `Retry-After`.
    pub uploads: u32,
}

impl Default for PerPrincipal {
    fn default() -> Self {
        Self { uploads: 64 }
    }
}

/// One permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whose.
    pub who: Who,
    /// What for.
    pub may: Vec<Action>,
    /// With which repositories: hosted ones by their names, others with their host.
    pub repositories: Vec<Glob>,
    /// With which tags; empty: all.
    pub tags: Vec<Glob>,
}

/// Whose permission a rule is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// `*`: everybody, anonymous clients too.
    Everybody,
    /// `net:<name>`: whoever connects from one of the networks of that name.
    Network(String),
    /// Users of the htpasswd file, by name or glob.
    User(Glob),
}

impl Access {
    pub(super) fn read(&mut self, table: &mut Table<'_>) {
        table.later(&["oidc"]);
        table.set("anonymous", &mut self.anonymous, actions);
        table.set("networks", &mut self.networks, networks);
        self.htpasswd = table.optional("htpasswd", |value| {
            let file = value.contents()?;
            value.warn_if_others_can_read(&file.path);
            check_htpasswd(value, &file);
            Some(file)
        });
        let known = Known { networks: &self.networks, users: self.htpasswd.as_ref().map(users) };
        table.set("rules", &mut self.rules, |value| value.each(|item| rule(item, &known)));
        table.within("limits", |table| {
            table.later(&["requests_per_second", "transfers"]);
            table.set("uploads", &mut self.limits.uploads, Value::at_least_one);
        });
    }

    /// Whether anybody can say who they are.
    pub fn authenticates(&self) -> bool {
        self.htpasswd.is_some()
    }
}

fn actions(value: &Value<'_>) -> Option<Vec<Action>> {
    let words = [("pull", Action::Pull), ("push", Action::Push), ("delete", Action::Delete)];
    let mut actions = value.each(|item| item.word(&words))?;
    actions.sort_unstable();
    actions.dedup();
    Some(actions)
}

fn networks(value: &Value<'_>) -> Option<BTreeMap<String, Vec<IpNet>>> {
    let named = value.table()?.names("<network>");
    Some(named.into_iter().filter_map(|(name, value)| Some((name, value.each(network)?))).collect())
}

/// Whom rules can name.
struct Known<'a> {
    networks: &'a BTreeMap<String, Vec<IpNet>>,
    /// The users of the htpasswd file, where there is one.
    users: Option<Vec<String>>,
}

fn users(file: &Contents) -> Vec<String> {
    let text = String::from_utf8_lossy(&file.bytes);
    text.lines().filter_map(|line| Some(line.trim().split_once(':')?.0.to_owned())).collect()
}

fn rule(value: &Value<'_>, known: &Known<'_>) -> Option<Rule> {
    let mut table = value.table()?;
    let who = table.required("who", |value| who(value, known));
    let may = table.required("may", actions);
    let repositories = table.required("repositories", Value::globs);
    let tags = table.optional("tags", Value::globs).unwrap_or_default();
    table.close();
    Some(Rule { who: who?, may: may?, repositories: repositories?, tags })
}

fn who(value: &Value<'_>, known: &Known<'_>) -> Option<Who> {
    let text = value.text()?;
    if text == "*" {
        return Some(Who::Everybody);
    }
    match text.split_once(':') {
        Some(("net", name)) if known.networks.contains_key(name) => Some(Who::Network(name.to_owned())),
        Some(("net", name)) => {
            let names: Vec<&str> = known.networks.keys().map(String::as_str).collect();
            value.problem(format!("access.networks has no `{name}`; it has {}", listed(&names)));
            None
        }
        Some((kind, _)) => {
            value.problem(format!(
                "`{kind}:` is not supported by this version yet; write *, net:<name of a network> or the name of a user"
            ));
            None
        }
        None => {
            let Some(users) = &known.users else {
                value.problem(format!("there is no user `{text}`: access.htpasswd is not set"));
                return None;
            };
            let pattern = value.glob()?;
            if !users.iter().any(|user| pattern.matches(user)) {
                value.remark(format!("no user of the htpasswd file is called `{text}`"));
            }
            Some(Who::User(pattern))
        }
    }
}

fn listed(words: &[&str]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// Refuses lines that no password could ever match: other hashes than bcrypt's look like a user who mistypes.
fn check_htpasswd(value: &Value<'_>, file: &Contents) {
    let text = String::from_utf8_lossy(&file.bytes);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bcrypt = line.split_once(':').is_some_and(|(user, hash)| {
            !user.is_empty() && ["$2a$", "$2b$", "$2y$"].iter().any(|start| hash.starts_with(start))
        });
        if !bcrypt {
            let place = format!("{} line {}", file.path.display(), number + 1);
            value.problem(format!("{place} is not user:hash with a bcrypt hash; make it with htpasswd -B"));
        }
    }
}
