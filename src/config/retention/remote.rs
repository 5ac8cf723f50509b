//! Remote registries in which policies may delete.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::config::document::Content;
use crate::config::limits::at_least;
use crate::config::limits::positive;
use crate::config::listen::pem;
use crate::config::secret::Contents;
use crate::config::table::Table;
use crate::config::upstream;
use crate::config::upstream::Credential;
use crate::config::upstream::Proxy;
use crate::config::upstream::is_loopback;
use crate::config::value::Value;

use super::Price;

/// One registry, by the host as it stands in image names.
///
/// What is left out is as the upstream of that host has it, where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// How it is spoken to.
    pub adapter: Adapter,
    /// Who may delete there. For `ecr` the user is an access key's id and the password its secret.
    pub credential: Option<Credential>,
    /// What its bytes cost; none: as hosted ones do.
    pub price: Option<Price>,
    /// Where its distribution API is; none: the first endpoint of the upstream.
    pub endpoint: Option<Url>,
    /// Where its own API is; none: where the adapter knows it to be.
    pub api: Option<Url>,
    /// Whose repositories a pattern reaches: organizations, namespaces, groups. Empty: all that the registry can list.
    pub owners: Vec<String>,
    /// Private addresses that its realms, redirects and pages may lead to.
    pub may_connect_to: Option<Vec<IpNet>>,
    /// Where the credential may be sent besides the endpoint's own origin and the built-in token hosts.
    pub token_hosts: Option<Vec<String>>,
    /// Certificates (PEM) that are trusted besides the usual ones.
    pub ca_file: Option<Contents>,
    /// The proxy that leads to it.
    pub proxy: Option<Proxy>,
    /// Its bounds.
    pub limits: RemoteLimits,
}

/// How a registry is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Adapter {
    /// The distribution API alone: tags are deleted by their names (OCI 1.1).
    Oci,
    /// GitHub's container registry: package versions.
    Ghcr,
    /// Amazon's registry.
    Ecr,
    /// Docker Hub.
    DockerHub,
    /// GitLab's registry.
    Gitlab,
    /// Harbor.
    Harbor,
    /// Google's Artifact Registry.
    Gar,
    /// Quay.
    Quay,
}

impl Adapter {
    const WORDS: [(&'static str, Self); 8] = [
        ("oci", Self::Oci),
        ("ghcr", Self::Ghcr),
        ("ecr", Self::Ecr),
        ("dockerhub", Self::DockerHub),
        ("gitlab", Self::Gitlab),
        ("harbor", Self::Harbor),
        ("gar", Self::Gar),
        ("quay", Self::Quay),
    ];

    /// The word for it in the configuration.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, adapter)| *adapter == self).map_or("oci", |(word, _)| word)
    }
}

/// The bounds of one remote registry. A listing that would go beyond one is an error, never a short list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteLimits {
    /// Requests at the same time.
    pub requests: u32,
    /// From a request to the last byte of its answer.
    pub timeout: Duration,
    /// How long a request may wait in all where the registry says 429.
    pub patience: Duration,
    /// Bytes of an answer of its own API.
    pub answer_bytes: u64,
    /// Repositories.
    pub repositories: u32,
    /// Tags of one repository.
    pub tags: u32,
    /// Manifests of one repository.
    pub manifests: u32,
    /// Manifests that are remembered, so that the next plan need not fetch them again.
    pub known: u32,
}

impl Default for RemoteLimits {
    fn default() -> Self {
        Self {
            requests: 8,
            timeout: Duration::from_secs(60),
            patience: Duration::from_mins(5),
            answer_bytes: 8 << 20,
            repositories: 10_000,
            tags: 100_000,
            manifests: 200_000,
            known: 20_000,
        }
    }
}

impl RemoteLimits {
    fn read(&mut self, table: &mut Table<'_>) {
        table.set("requests", &mut self.requests, Value::at_least_one);
        table.set("timeout", &mut self.timeout, positive);
        table.set("patience", &mut self.patience, Value::duration);
        table.set("answer_bytes", &mut self.answer_bytes, |value| at_least(value, 64 << 10, "64KiB"));
        table.set("repositories", &mut self.repositories, Value::at_least_one);
        table.set("tags", &mut self.tags, Value::at_least_one);
        table.set("manifests", &mut self.manifests, Value::at_least_one);
        table.set("known", &mut self.known, Value::at_least_one);
    }
}

impl Remote {
    /// A registry with every default.
    pub fn of(adapter: Adapter) -> Self {
        Self {
            adapter,
            credential: None,
            price: None,
            endpoint: None,
            api: None,
            owners: Vec::new(),
            may_connect_to: None,
            token_hosts: None,
            ca_file: None,
            proxy: None,
            limits: RemoteLimits::default(),
        }
    }

    fn read(value: &Value<'_>, host: &str) -> Option<Self> {
        let mut table = value.table()?;
        let adapter = table.required("adapter", |value| value.word(&Adapter::WORDS));
        let mut remote = Self::of(adapter.unwrap_or(Adapter::Oci));
        remote.credential = table.optional("credential", credential);
        remote.price = table.optional("price", price);
        remote.endpoint = table.optional("endpoint", |value| value.parsed(upstream::endpoint));
        remote.api = table.optional("api", |value| value.parsed(upstream::endpoint));
        table.set("owners", &mut remote.owners, |value| value.each(|item| item.parsed(owner)));
        remote.may_connect_to = table.optional("may_connect_to", |value| value.each(upstream::network));
        remote.token_hosts =
            table.optional("token_hosts", |value| value.each(|item| item.parsed(upstream::token_host)));
        remote.ca_file = table.optional("ca_file", |value| pem(value, "CERTIFICATE"));
        remote.proxy = table.optional("proxy", upstream::proxy);
        table.within("limits", |table| remote.limits.read(table));
        table.close();
        remote.check(value, host);
        adapter.map(|_| remote)
    }

    /// What does not go together with the adapter. A credential must not go to a public API because the registry is a
    /// private one of the same kind.
    fn check(&self, value: &Value<'_>, host: &str) {
        let public = match self.adapter {
            Adapter::Ghcr => Some(("ghcr.io", "https://github.example.com/api/v3")),
            Adapter::DockerHub => Some(("docker.io", "https://hub.example.com")),
            Adapter::Gitlab if !self.owners.is_empty() => Some(("registry.gitlab.com", "https://gitlab.example.com")),
            _ => None,
        };
        if let (Some((known, example)), None) = (public.filter(|(known, _)| *known != host), &self.api) {
            value.problem(format!("`api` is missing: of {known} it is known, of {host} not; write one like {example}"));
        }
        if self.adapter == Adapter::Ecr && self.api.is_none() && region(host).is_none() {
            value.problem(format!(
                "`{host}` is not <account>.dkr.ecr.<region>.amazonaws.com, so `api` must say where ECR's API is"
            ));
        }
        if self.adapter == Adapter::Gar && !host.ends_with("-docker.pkg.dev") {
            value
                .problem(format!("`{host}` is not <location>-docker.pkg.dev, as Artifact Registry's hosts are called"));
        }
        if let (Adapter::Oci, Some(api)) = (self.adapter, &self.api) {
            value.problem(format!("`oci` has no API of its own at {api}; `endpoint` says where the registry is"));
        }
        if self.adapter == Adapter::Ghcr && self.owners.is_empty() {
            value.remark("without owners: [name] a pattern over this registry reaches nothing; full names do");
        }
        let open = self.api.iter().chain(&self.endpoint).find(|url| url.scheme() == "http" && !is_loopback(url));
        if let Some(url) = open {
            value.remark(format!("the credential goes to {url} without encryption"));
        }
    }
}

/// The region in the host of one of Amazon's registries.
pub fn region(host: &str) -> Option<&str> {
    let (account, rest) = host.split_once(".dkr.ecr")?;
    let rest = rest.strip_prefix("-fips").unwrap_or(rest).strip_prefix('.')?;
    let (region, domain) = rest.split_once('.')?;
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    (is_account && domain.starts_with("amazonaws.com")).then_some(region)
}

/// An empty mapping is as good as none.
fn is_empty(value: &Value<'_>) -> bool {
    matches!(&value.node.content, Content::Map(entries) if entries.is_empty())
}

fn credential(value: &Value<'_>) -> Option<Credential> {
    if is_empty(value) { None } else { upstream::credential(value) }
}

fn price(value: &Value<'_>) -> Option<Price> {
    if is_empty(value) {
        return None;
    }
    let (mut table, mut price) = (value.table()?, Price::default());
    price.read(&mut table);
    table.close();
    Some(price)
}

fn owner(text: &str) -> Result<String, String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    if text.is_empty() || !text.bytes().all(valid) || text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("`{text}` is not the name of an organization, a namespace or a group"));
    }
    Ok(text.to_owned())
}

/// The registries of the file, by host.
pub(in crate::config) fn read(value: &Value<'_>) -> Option<BTreeMap<String, Remote>> {
    let mut remotes = BTreeMap::new();
    for (host, value) in value.table()?.names("<host>") {
        if let Err(message) = upstream::check_host(&host) {
            value.problem(message);
        } else if let Some(remote) = Remote::read(&value, &host) {
            remotes.insert(host, remote);
        }
    }
    Some(remotes)
}

#[cfg(test)]
mod tests {
    use super::region;

    #[test]
    fn amazons_hosts_say_their_region() {
        for (host, want) in [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", Some("us-east-1")),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("public.ecr.aws", None),
            ("12345.dkr.ecr.eu-west-1.amazonaws.com", None),
            ("123456789012.dkr.ecr.eu-west-1.example.com", None),
        ] {
            assert_eq!(region(host), want, "{host}");
        }
    }
}
