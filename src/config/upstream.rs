//! Registries that images come from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::pattern::Glob;

use super::limits::at_least;
use super::limits::positive;
use super::listen::pem;
use super::secret::Contents;
use super::secret::Secret;
use super::table::Table;
use super::value::Value;

/// The public registries that are known without configuration.
pub const BUILT_IN: [&str; 7] =
    ["docker.io", "gcr.io", "ghcr.io", "mcr.microsoft.com", "public.ecr.aws", "quay.io", "registry.k8s.io"];

/// Other names of Docker Hub; requests may use them, the configuration calls it `docker.io`.
const HUB_ALIASES: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// One registry, by the host as it stands in image names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The host in image names: `docker.io`, `registry.example.com:5000`.
    pub host: String,
    /// Where it is asked, in order; never empty, `http` or `https`, without user, query or fragment.
    pub endpoints: Vec<Url>,
    /// What it is asked with.
    pub credential: Option<Credential>,
    /// Who may have what came with the credential.
    pub visibility: Visibility,
    /// Repositories that are pulled from it; empty: all. Matched against the name without the host.
    pub allow: Vec<Glob>,
    /// Repositories that are not, whatever `allow` says.
    pub deny: Vec<Glob>,
    /// Private addresses that its realms and redirects may lead to.
    pub may_connect_to: Vec<IpNet>,
    /// Where the credential may be sent besides the endpoints' own origins and the built-in token hosts: host or host:port.
    pub token_hosts: Vec<String>,
    /// Certificates (PEM) that are trusted besides the usual ones.
    pub ca_file: Option<Contents>,
    /// The proxy that leads to it.
    pub proxy: Option<Proxy>,
    /// Its bounds.
    pub limits: UpstreamLimits,
}

/// Where a credential comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// User and password, or the token that a registry calls one.
    Basic {
        /// The user.
        username: String,
        /// The password, from a file or the environment.
        password: Secret,
    },
    /// A docker `config.json` (auths, credsStore, credHelpers), read when it is needed.
    DockerConfig(PathBuf),
    /// The program `docker-credential-<name>`.
    Helper(String),
}

/// Who may have what came with the upstream's credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// What the upstream serves to anybody is anybody's who may pull; the rest needs a rule of `access`.
    Verify,
    /// Whoever may pull from here.
    Shared,
}

/// A proxy for outgoing connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its address, without user and password.
    pub url: Url,
    /// User and password, where it wants them.
    pub credential: Option<(String, Secret)>,
}

/// The bounds of one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// Open connections to each of its endpoints.
    pub connections: u32,
    /// Requests that wait for a connection.
    pub waiting: u32,
    /// From the first packet to an open connection, TLS included.
    pub connect: Duration,
    /// From the request to the answer's headers.
    pub headers: Duration,
    /// How long a body may bring no byte.
    pub stall: Duration,
    /// How long a client waits for the upstream where a copy is held.
    pub stale_answer: Duration,
    /// Tries in a row of a blob's transfer without a new byte.
    pub retries: u32,
    /// Redirects in a row.
    pub redirects: u32,
    /// Bytes of a manifest.
    pub manifest_bytes: u64,
    /// Bytes of a blob.
    pub blob_bytes: u64,
    /// Bytes of any other answer: tokens, pages of tags, errors.
    pub answer_bytes: u64,
    /// Tokens kept.
    pub tokens: u32,
    /// How long a credential helper may take.
    pub helper: Duration,
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        Self {
            connections: 32,
            waiting: 4_096,
            connect: Duration::from_secs(3),
            headers: Duration::from_secs(10),
            stall: Duration::from_secs(20),
            stale_answer: Duration::from_secs(2),
            retries: 5,
            redirects: 5,
            manifest_bytes: 4 << 20,
            blob_bytes: 100 << 30,
            answer_bytes: 1 << 20,
            tokens: 1_000,
            helper: Duration::from_secs(10),
        }
    }
}

impl UpstreamLimits {
    fn read(&mut self, table: &mut Table<'_>) {
        table.set("connections", &mut self.connections, Value::at_least_one);
        table.set("waiting", &mut self.waiting, Value::count);
        table.set("connect", &mut self.connect, positive);
        table.set("headers", &mut self.headers, positive);
        table.set("stall", &mut self.stall, positive);
        table.set("stale_answer", &mut self.stale_answer, positive);
        table.set("retries", &mut self.retries, Value::count);
        table.set("redirects", &mut self.redirects, Value::count);
        table.set("manifest_bytes", &mut self.manifest_bytes, |value| at_least(value, 64 << 10, "64KiB"));
        table.set("blob_bytes", &mut self.blob_bytes, |value| at_least(value, 1 << 20, "1MiB"));
        table.set("answer_bytes", &mut self.answer_bytes, |value| at_least(value, 64 << 10, "64KiB"));
        table.set("tokens", &mut self.tokens, Value::at_least_one);
        table.set("helper", &mut self.helper, positive);
    }
}

impl Upstream {
    /// The upstream of that host with every default: asked at `https://<host>`, without a credential.
    ///
    /// `None` where the host is none.
    pub fn of(host: &str) -> Option<Self> {
        let at = if host == "docker.io" { "registry-1.docker.io" } else { host };
        Some(Self {
            host: host.to_owned(),
            endpoints: vec![Url::parse(&format!("https://{at}")).ok()?],
            credential: None,
            visibility: Visibility::Verify,
            allow: Vec::new(),
            deny: Vec::new(),
            may_connect_to: Vec::new(),
            token_hosts: Vec::new(),
            ca_file: None,
            proxy: None,
            limits: UpstreamLimits::default(),
        })
    }

    fn read(&mut self, table: &mut Table<'_>) {
        table.set("endpoints", &mut self.endpoints, endpoints);
        self.credential = table.optional("credential", credential);
        table.set("visibility", &mut self.visibility, |value| {
            if value.text().as_deref() == Some("private") {
                value.problem("`private` is not supported by this version yet; use verify or shared");
                return None;
            }
            value.word(&[("verify", Visibility::Verify), ("shared", Visibility::Shared)])
        });
        table.set("allow", &mut self.allow, Value::globs);
        table.set("deny", &mut self.deny, Value::globs);
        table.set("may_connect_to", &mut self.may_connect_to, |value| value.each(network));
        table.set("token_hosts", &mut self.token_hosts, |value| value.each(|item| item.parsed(token_host)));
        self.ca_file = table.optional("ca_file", |value| pem(value, "CERTIFICATE"));
        self.proxy = table.optional("proxy", proxy);
        let limits = &mut self.limits;
        table.within("limits", |table| limits.read(table));
        self.remark_on_plain_http(table.value());
    }

    fn remark_on_plain_http(&self, at: &Value<'_>) {
        let open = self.endpoints.iter().find(|url| url.scheme() == "http" && !is_loopback(url));
        if let (Some(url), Some(_)) = (open, &self.credential) {
            at.remark(format!("the credential goes to {url} without encryption"));
        }
    }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The built-in upstreams, and those of the file over them.
pub(super) fn read(value: Option<&Value<'_>>) -> BTreeMap<String, Arc<Upstream>> {
    let mut found: BTreeMap<String, Upstream> =
        BUILT_IN.iter().filter_map(|host| Some(((*host).to_owned(), Upstream::of(host)?))).collect();
    let names = value.and_then(Value::table).map(|table| table.names("<host>")).unwrap_or_default();
    for (host, value) in names {
        if let Err(message) = check_host(&host) {
            value.problem(message);
        } else if value.is_null() {
            found.remove(&host);
        } else if let (Some(mut table), Some(default)) = (value.table(), Upstream::of(&host)) {
            let mut upstream = found.remove(&host).unwrap_or(default);
            upstream.read(&mut table);
            table.close();
            found.insert(host, upstream);
        }
    }
    found.into_iter().map(|(host, upstream)| (host, Arc::new(upstream))).collect()
}

/// A host as it can stand in an image's name. Without a dot, a port or `localhost` clients would take it for a part of
/// the repository.
pub(super) fn check_host(host: &str) -> Result<(), String> {
    if HUB_ALIASES.contains(&host) {
        return Err(format!("`{host}` is Docker Hub, which the configuration calls docker.io"));
    }
    if host.contains("://") || host.contains('/') {
        return Err(format!(
            "`{host}` must be a host as it stands in image names, like ghcr.io; URLs belong to `endpoints`"
        ));
    }
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("`{host}` must be in lower case, as in image names"));
    }
    let (name, port) = host.split_once(':').unwrap_or((host, "443"));
    let labels = name.split('.').all(|label| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    });
    if !labels || port.parse::<u16>().is_err() || Upstream::of(host).is_none() {
        return Err(format!("`{host}` is not a host, or host:port, as it can stand in image names"));
    }
    if !host.contains(['.', ':']) && host != "localhost" {
        return Err(format!(
            "`{host}` needs a dot or a port: in image names it would be taken for a part of the repository"
        ));
    }
    Ok(())
}

fn endpoints(value: &Value<'_>) -> Option<Vec<Url>> {
    let found = value.each(|item| item.parsed(endpoint))?;
    if value.list()?.is_empty() {
        value.problem("at least one endpoint is needed, like https://registry.example.com");
    }
    if found.is_empty() { None } else { Some(found) }
}

/// Reads a URL that something is asked at.
pub(super) fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text)
        .map_err(|error| format!("`{text}` is not a URL ({error}); write one like https://registry.example.com"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("the scheme of `{text}` must be https or http"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an endpoint carries no user or password; they belong to `credential`".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("`{text}` must have neither a query nor a fragment"));
    }
    Ok(url)
}

pub(super) fn credential(value: &Value<'_>) -> Option<Credential> {
    let mut table = value.table()?;
    let username = table.optional("username", Value::text);
    let file = table.get("password_file");
    let inline = table.get("password");
    let docker_config = table.get("docker_config");
    let helper = table.get("helper");
    table.close();
    let kinds = [username.is_some() || file.is_some() || inline.is_some(), docker_config.is_some(), helper.is_some()];
    if kinds.into_iter().filter(|given| *given).count() != 1 {
        value.problem("needs exactly one of: username with password_file (or password), docker_config, helper");
        return None;
    }
    if let Some(path) = docker_config {
        let path = path.existing()?;
        value.warn_if_others_can_read(&path);
        return Some(Credential::DockerConfig(path));
    }
    if let Some(helper) = helper {
        return helper.parsed(helper_name).map(Credential::Helper);
    }
    let password = match (&file, &inline) {
        (Some(file), None) => file.secret_file(),
        (None, Some(inline)) => inline.secret(),
        _ => {
            value.problem("needs one of password_file and password beside username");
            None
        }
    };
    if username.is_none() {
        value.problem("needs username beside the password");
    }
    Some(Credential::Basic { username: username?, password: password? })
}

/// The part after `docker-credential-`: it becomes the name of a program, so it must not lead elsewhere.
fn helper_name(text: &str) -> Result<String, String> {
    let valid = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if text.is_empty() || !valid || text.starts_with('.') {
        return Err(format!("`{text}` is not the name of a helper; write ecr-login for docker-credential-ecr-login"));
    }
    Ok(text.strip_prefix("docker-credential-").unwrap_or(text).to_owned())
}

/// Reads a network (`10.0.0.0/8`) or one address.
pub(super) fn network(value: &Value<'_>) -> Option<IpNet> {
    value.parsed(|text| {
        let one = text.parse::<std::net::IpAddr>().map(IpNet::from);
        let network = text.parse::<IpNet>().map(|network| network.trunc());
        network.or(one).map_err(|_| format!("`{text}` is not a network; write one like 10.0.0.0/8 or an address"))
    })
}

pub(super) fn token_host(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is not a host or host:port, like auth.example.com");
    let url = Url::parse(&format!("https://{text}")).map_err(|_| wrong())?;
    let bare = url.path() == "/" && !text.contains('/') && url.query().is_none() && url.username().is_empty();
    if !bare || text.contains("://") || text.contains('#') {
        return Err(wrong());
    }
    Ok(text.to_ascii_lowercase())
}

/// Reads a proxy; its password comes from the environment.
pub(super) fn proxy(value: &Value<'_>) -> Option<Proxy> {
    let mut url = value.parsed(|text| {
        let url = Url::parse(text)
            .map_err(|error| format!("not a URL ({error}); write one like http://proxy.example.com:3128"))?;
        match (url.scheme(), url.host_str()) {
            ("http" | "https", Some(_)) => Ok(url),
            _ => Err("the scheme of a proxy must be http or https".to_owned()),
        }
    })?;
    let Some(password) = url.password().map(Secret::new) else { return Some(Proxy { url, credential: None }) };
    // The password must come from the environment, like every other secret.
    if matches!(&value.node.content, super::document::Content::Scalar(text) if !text.contains("${")) {
        value.problem("a password is not written into the configuration; use ${NAME} from the environment");
        return None;
    }
    let username = url.username().to_owned();
    if url.set_username("").is_err() || url.set_password(None).is_err() {
        value.problem("the proxy's user and password could not be read");
        return None;
    }
    Some(Proxy { url, credential: Some((username, password)) })
}
