//! Where a credential, or an anonymous question for a token, may be sent (CVE-2026-33540 and its like: a realm is an
//! upstream's word, and must not choose who gets our password).

use url::Url;

use crate::net::address::Origin;

/// The token hosts of public registries, by the registry's host in image names; always https.
const BUILT_IN: [(&str, &str); 9] = [
    ("docker.io", "auth.docker.io"),
    ("ghcr.io", "ghcr.io"),
    ("quay.io", "quay.io"),
    ("gcr.io", "gcr.io"),
    ("registry.k8s.io", "registry.k8s.io"),
    ("mcr.microsoft.com", "mcr.microsoft.com"),
    ("public.ecr.aws", "public.ecr.aws"),
    ("registry.gitlab.com", "gitlab.com"),
    ("nvcr.io", "authn.nvidia.com"),
];

/// Registries whose every host has a token service of its own.
const BUILT_IN_SUFFIXES: [&str; 3] = [".gcr.io", ".pkg.dev", ".azurecr.io"];

/// Why a realm is not asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the realm is no URL")]
    Url,
    #[error("the realm carries a user or a password")]
    User,
    #[error("the realm at {0} would be asked without encryption")]
    Plain(String),
    #[error("{0} is no token host of this upstream; name it in `token_hosts` if it is one")]
    Host(String),
}

/// Who may be asked for tokens.
#[derive(Clone, Debug)]
pub(super) struct Realms {
    registry: String,
    hosts: Vec<String>,
}

impl Realms {
    /// Those of a registry, and those of the configuration.
    pub(super) fn new(registry: &str, hosts: &[String]) -> Self {
        Self { registry: registry.to_owned(), hosts: hosts.to_vec() }
    }

    /// The realm's URL, where it may be asked by one who talks to `endpoint`.
    pub(super) fn check(&self, endpoint: &Url, realm: &str) -> Result<Url, Refusal> {
        let url = Url::parse(realm).map_err(|_| Refusal::Url)?;
        let origin = Origin::of(&url).ok_or(Refusal::Url)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::User);
        }
        let own = Origin::of(endpoint);
        if own.as_ref() == Some(&origin) {
            return Ok(url);
        }
        if origin.is_tls() && origin.port() == 443 && self.is_built_in(origin.host()) {
            return Ok(url);
        }
        let named = self.hosts.iter().any(|host| {
            // A host without a port means the scheme's own.
            Url::parse(&format!("{}://{host}", url.scheme()))
                .is_ok_and(|url| Origin::of(&url).as_ref() == Some(&origin))
        });
        if !named {
            return Err(Refusal::Host(format!("{}:{}", origin.host(), origin.port())));
        }
        if !origin.is_tls() && own.is_none_or(|own| own.is_tls()) {
            return Err(Refusal::Plain(origin.host().to_owned()));
        }
        Ok(url)
    }

    fn is_built_in(&self, host: &str) -> bool {
        BUILT_IN.contains(&(self.registry.as_str(), host))
            || (self.registry == host && BUILT_IN_SUFFIXES.iter().any(|suffix| host.ends_with(suffix)))
    }
}

#[cfg(test)]
mod tests;
