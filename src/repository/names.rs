//! How a request finds its repository: three spellings, one key. Pure.
//!
//! `/v2/<host>/<repo>/…` (BuildKit, podman, direct use), `/<host>/v2/<repo>/…` (dockerd and containerd with a path in
//! the mirror's address) and `/v2/<repo>/…?ns=<host>` (containerd, CRI, BuildKit) mean the same. What a client sends
//! only selects among the configured registries: no name makes larder talk to another host.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::SocketAddr;

use url::Url;

use crate::oci::RegistryName;
use crate::oci::RepositoryKey;
use crate::oci::RepositoryName;
use crate::pattern::Glob;

/// Docker Hub, as image names say it.
const HUB: &str = "docker.io";

/// Other names of Docker Hub that clients send: regclient's `ns` is the endpoint's host.
const HUB_ALIASES: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// How a request names its repository, with run and token prefixes taken off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spelling {
    /// What stands before `/v2`, without slashes around it.
    pub prefix: Option<String>,
    /// What stands between `/v2/` and the verb.
    pub path: String,
    /// The value of the query's `ns`, decoded.
    pub ns: Option<String>,
}

/// Why a request names no repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    /// The registry that it names is not configured.
    #[error("the registry is not configured")]
    Unknown,
    /// What remains is not a repository's name.
    #[error("not a repository's name")]
    Invalid,
}

/// What larder calls itself. A client that sends one of these as host names no registry by it: containerd's `_default`
/// sends the host of the image, which is ours when somebody pulls from us directly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnNames(BTreeSet<String>);

impl OwnNames {
    /// The names that come from `external_url` and from the addresses that are listened on, each with its port, and
    /// without it where it is the scheme's own.
    pub fn new(external_url: Option<&Url>, listen: &[SocketAddr]) -> Self {
        let mut names = BTreeSet::new();
        if let Some(url) = external_url
            && let Some(host) = url.host_str()
        {
            let port = url.port_or_known_default().unwrap_or(443);
            names.insert(format!("{host}:{port}"));
            // `Url` leaves the scheme's own port out, as image names do.
            if url.port().is_none() {
                names.insert(host.to_owned());
            }
        }
        for address in listen {
            names.insert(address.to_string());
            let ip = address.ip();
            if ip.is_loopback() || ip.is_unspecified() {
                names.insert(format!("localhost:{}", address.port()));
            }
            if ip.is_unspecified() {
                let loopback = match ip {
                    IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
                    IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
                };
                names.insert(SocketAddr::new(loopback, address.port()).to_string());
            }
        }
        Self(names)
    }

    fn contains(&self, host: &str) -> bool {
        if host.bytes().any(|b| b.is_ascii_uppercase()) {
            self.0.contains(&host.to_ascii_lowercase())
        } else {
            self.0.contains(host)
        }
    }
}

/// The names that requests are compared with.
#[derive(Clone, Debug)]
pub struct Names {
    /// The configured registries.
    pub registries: BTreeSet<RegistryName>,
    /// The registry of names without a host; one of `registries`.
    pub default: RegistryName,
    /// Names that live here, where the request names no host.
    pub hosted: Vec<Glob>,
    /// Hosts that mean "none given".
    pub own: OwnNames,
}

/// What a host in a request turned out to be.
enum Host {
    /// One of larder's own names, or nothing at all.
    NotGiven,
    /// A configured registry.
    Configured(RegistryName),
    /// Something else.
    Unknown,
}

impl Names {
    fn host(&self, text: &str) -> Host {
        if text.is_empty() || self.own.contains(text) {
            return Host::NotGiven;
        }
        let Ok(host) = canonical(text).parse::<RegistryName>() else { return Host::Unknown };
        if self.registries.contains(&host) { Host::Configured(host) } else { Host::Unknown }
    }
}

/// The one name of a registry that has several.
fn canonical(host: &str) -> &str {
    if HUB_ALIASES.iter().any(|alias| alias.eq_ignore_ascii_case(host)) { HUB } else { host }
}

/// Whether the first part of a path is meant as a host, as the clients tell it in image names.
fn looks_like_a_host(segment: &str) -> bool {
    segment.contains(['.', ':']) || segment == "localhost"
}

/// The repository that `spelling` means.
///
/// The order: a host before `/v2`, or as the first part of the path; then `ns`; then, where no host was named, the
/// hosted names; then the default registry. A host in the path wins over `ns`. Where `ns` names a configured registry
/// a first part that is not configured belongs to the name: `gcr.io/google.com/project/image` is one.
///
/// # Errors
///
/// The registry is not configured, or the rest is no repository's name.
pub fn find(spelling: &Spelling, names: &Names) -> Result<RepositoryKey, NameProblem> {
    let mut path = spelling.path.as_str();
    let mut given = None;
    // A mirror's address may go on after the host: `/ghcr.io/acme/v2/app` is `ghcr.io/acme/app`.
    let mut within = "";
    if let Some(prefix) = spelling.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
        let (host, rest) = prefix.split_once('/').unwrap_or((prefix, ""));
        within = rest;
        match names.host(host) {
            Host::NotGiven => {}
            Host::Configured(host) => given = Some(host),
            Host::Unknown => return Err(NameProblem::Unknown),
        }
    }
    // Ours once, then a registry's: `/v2/larder.example.com/ghcr.io/acme/app` is `ghcr.io/acme/app`.
    if within.is_empty()
        && let Some((first, rest)) = path.split_once('/')
        && names.own.contains(first)
    {
        path = rest;
    }
    let ns = match names.host(spelling.ns.as_deref().unwrap_or_default()) {
        // Said twice, as with a mirror whose address has the host and a client that sends it too.
        _ if given.is_some() => None,
        Host::NotGiven => None,
        Host::Configured(host) => Some(Ok(host)),
        Host::Unknown => Some(Err(NameProblem::Unknown)),
    };
    if within.is_empty()
        && let Some((first, rest)) = path.split_once('/')
        && looks_like_a_host(first)
    {
        match (names.host(first), &given, &ns) {
            (Host::Configured(host), None, _) => {
                given = Some(host);
                path = rest;
            }
            (Host::Configured(host), Some(before), _) if host == *before => path = rest,
            (_, Some(_), _) | (_, None, Some(Ok(_))) => {}
            (_, None, _) => return Err(NameProblem::Unknown),
        }
    }
    let registry = match (given, ns) {
        (Some(host), _) | (None, Some(Ok(host))) => Some(host),
        (None, Some(Err(problem))) => return Err(problem),
        (None, None) => None,
    };
    named(registry, within, path, names)
}

/// The repository of that path in `registry`, or in the one that names without a host mean.
fn named(
    registry: Option<RegistryName>,
    within: &str,
    path: &str,
    names: &Names,
) -> Result<RepositoryKey, NameProblem> {
    let joined = if within.is_empty() { Cow::Borrowed(path) } else { Cow::Owned(format!("{within}/{path}")) };
    let registry = match registry {
        Some(registry) => registry,
        None if names.hosted.iter().any(|glob| glob.matches(&joined)) => RegistryName::hosted(),
        // `localhost` or a host with a dot and nothing after it is no image of the default registry either.
        None if looks_like_a_host(&joined) && !joined.contains('/') => return Err(NameProblem::Unknown),
        None => names.default.clone(),
    };
    // Docker Hub's names have no dots in front: a host that is said twice is one.
    let joined = match joined.strip_prefix("docker.io/") {
        Some(rest) if registry.as_str() == HUB => rest,
        _ => &*joined,
    };
    let official = registry.as_str() == HUB && !joined.contains('/');
    let name = if official { Cow::Owned(format!("library/{joined}")) } else { Cow::Borrowed(joined) };
    let name = name.parse::<RepositoryName>().map_err(|_| NameProblem::Invalid)?;
    Ok(RepositoryKey::new(registry, name))
}

#[cfg(test)]
mod tests;
