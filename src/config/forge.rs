//! Where code lives: what branches and pull requests are asked of, and who may say that they changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::limits::at_least;
use super::limits::positive;
use super::listen::pem;
use super::retention::BranchAlive;
use super::retention::BranchesFrom;
use super::retention::Condition;
use super::retention::Retention;
use super::secret::Contents;
use super::secret::Secret;
use super::table::Table;
use super::upstream::Proxy;
use super::upstream::endpoint;
use super::upstream::is_loopback;
use super::upstream::proxy;
use super::value::Value;

/// The longest name of a forge: it stands in a path, `/hooks/<name>`.
const NAME_BYTES_MAX: usize = 64;

/// The API that a forge speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForgeKind {
    /// GitHub, or GitHub Enterprise Server.
    Github,
    /// GitLab.
    Gitlab,
    /// Gitea, or Forgejo.
    Gitea,
}

impl ForgeKind {
    const WORDS: [(&'static str, Self); 3] =
        [("github", Self::Github), ("gitlab", Self::Gitlab), ("gitea", Self::Gitea)];

    /// As it stands in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Gitea => "gitea",
        }
    }

    /// The API of the public one, where there is one.
    fn public_api(self) -> Option<Url> {
        match self {
            Self::Github => Url::parse("https://api.github.com").ok(),
            Self::Gitlab => Url::parse("https://gitlab.com/api/v4").ok(),
            Self::Gitea => None,
        }
    }
}

/// One forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forge {
    /// Its API.
    pub kind: ForgeKind,
    /// Where that is, without what stands behind it (`/repos/…`, `/projects/…`).
    pub api: Url,
    /// What it is asked with.
    pub token: Option<Secret>,
    /// What its webhooks are signed with, or show; without one none is believed.
    pub webhook_secret: Option<Secret>,
    /// Certificates trusted for it besides the usual ones.
    pub ca_file: Option<Contents>,
    /// The proxy that leads to it.
    pub proxy: Option<Proxy>,
    /// Its bounds.
    pub limits: ForgeLimits,
}

/// Bounds of what is asked of a forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgeLimits {
    /// How long a connection may take to come about.
    pub connect: Duration,
    /// How long an answer may take, its body included.
    pub timeout: Duration,
    /// How long a listing waits where the forge asks for that; beyond it the listing fails.
    pub wait: Duration,
    /// Bytes of one page.
    pub answer_bytes: u64,
    /// Pages of one listing; one that has more fails.
    pub pages: u32,
    /// Branches, and pull requests, that are remembered of a repository.
    pub names: u32,
    /// Repositories of which something is remembered.
    pub repositories: u32,
}

impl Default for ForgeLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            timeout: Duration::from_secs(30),
            wait: Duration::from_mins(1),
            answer_bytes: 8 << 20,
            pages: 200,
            names: 50_000,
            repositories: 1_000,
        }
    }
}

impl ForgeLimits {
    fn read(&mut self, table: &mut Table<'_>) {
        table.set("connect", &mut self.connect, positive);
        table.set("timeout", &mut self.timeout, positive);
        table.set("wait", &mut self.wait, Value::duration);
        table.set("answer_bytes", &mut self.answer_bytes, |value| at_least(value, 64 << 10, "64KiB"));
        table.set("pages", &mut self.pages, Value::at_least_one);
        table.set("names", &mut self.names, Value::at_least_one);
        table.set("repositories", &mut self.repositories, Value::at_least_one);
    }
}

/// The forges by their names.
pub(super) fn forges(value: &Value<'_>) -> Option<BTreeMap<String, Arc<Forge>>> {
    let mut found = BTreeMap::new();
    for (name, value) in value.table()?.names("<name>") {
        if let Err(message) = check_name(&name) {
            value.problem(message);
        } else if let Some(forge) = forge(&value) {
            found.insert(name, Arc::new(forge));
        }
    }
    Some(found)
}

fn forge(value: &Value<'_>) -> Option<Forge> {
    let mut table = value.table()?;
    let kind = table.required("kind", |value| value.word(&ForgeKind::WORDS));
    let api = table.get("api");
    let token = table.optional("token_file", Value::secret_file);
    let webhook_secret = table.optional("webhook_secret_file", Value::secret_file);
    let ca_file = table.optional("ca_file", |value| pem(value, "CERTIFICATE"));
    let proxy = table.optional("proxy", proxy);
    let mut limits = ForgeLimits::default();
    table.within("limits", |table| limits.read(table));
    table.close();
    let kind = kind?;
    let api = match &api {
        Some(value) => value.parsed(endpoint)?,
        None => kind.public_api().or_else(|| {
            value.problem("`api` is missing: every Gitea has its own, like https://gitea.example.com/api/v1");
            None
        })?,
    };
    if api.scheme() == "http" && token.is_some() && !is_loopback(&api) {
        value.remark(format!("the token goes to {api} without encryption"));
    }
    Some(Forge { kind, api, token, webhook_secret, ca_file, proxy, limits })
}

/// The forges that policies ask, each with the policy's name.
pub(super) fn asked(retention: &Retention) -> impl Iterator<Item = (&str, &str)> {
    retention.policies.iter().flat_map(|policy| {
        policy.keep.iter().flat_map(|item| &item.conditions).filter_map(|condition| {
            let forge = match condition {
                Condition::BranchAlive(BranchAlive { from: BranchesFrom::Forge { forge, .. }, .. }) => forge,
                Condition::PullOpen(pull) => &pull.forge,
                _ => return None,
            };
            Some((policy.name.as_str(), forge.as_str()))
        })
    })
}

/// A name that can stand in a path as it is.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        return Err(format!(
            "`{name}` can't be a name here: it stands in the path /hooks/<name>; use a-z, 0-9, - and _"
        ));
    }
    Ok(())
}
