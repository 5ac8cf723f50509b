//! Names of repositories and of the registries that they come from.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;

/// The longest repository name, in bytes: hosts and names share a limit of 255 in the clients.
pub const NAME_BYTES_MAX: usize = 255;

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a repository name has lower-case letters, digits and single separators, in parts divided by `/`")]
pub struct NameError;

/// A repository's name, the specification's `<name>`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// The name in writing.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.split('/').all(is_component) {
            return Err(NameError);
        }
        Ok(Self(text.into()))
    }
}

/// One part of a name: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().copied().is_some_and(letter) || !bytes.last().copied().is_some_and(letter) {
        return false;
    }
    bytes.chunk_by(|a, b| letter(*a) == letter(*b)).all(|run| match run {
        [first, ..] if letter(*first) => true,
        b"." | b"_" | b"__" => true,
        dashes => dashes.iter().all(|b| *b == b'-'),
    })
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The registry that a repository belongs to: a host as it stands in image names, with its port where it has one,
/// or [`RegistryName::hosted`] for what lives here. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistryName(Arc<str>);

/// How the registry of hosted repositories is written: no host has an underscore in front.
const HOSTED: &str = "_hosted";

impl RegistryName {
    /// The registry of the repositories that live here alone.
    pub fn hosted() -> Self {
        Self(HOSTED.into())
    }

    /// Whether this is [`RegistryName::hosted`].
    pub fn is_hosted(&self) -> bool {
        &*self.0 == HOSTED
    }

    /// The host in writing.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RegistryName {
    type Err = NameError;

    /// Reads `host` or `host:port`; letters are taken as lower case, as DNS takes them.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let label = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let port_is_one =
            port.is_none_or(|p| p.len() <= 5 && p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok());
        if host.len() > 253 || !host.split('.').all(label) || !port_is_one {
            return Err(NameError);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One repository among all: its registry and its name there. `docker.io/library/alpine` in writing;
/// a hosted one is written without the registry. Cheap to clone.
///
/// Two requests share an entry of any cache only if their keys are equal [CVE-2026-2836: a cache key without the host].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryKey {
    /// The registry.
    pub registry: RegistryName,
    /// The name within it.
    pub name: RepositoryName,
}

impl RepositoryKey {
    /// The repository `name` of `registry`.
    pub fn new(registry: RegistryName, name: RepositoryName) -> Self {
        Self { registry, name }
    }

    /// Whether the repository lives here alone.
    pub fn is_hosted(&self) -> bool {
        self.registry.is_hosted()
    }

    /// `registry/name`, hosted or not: one to one, for keys of tables.
    pub fn path(&self) -> String {
        format!("{}/{}", self.registry, self.name)
    }

    /// Reads what [`RepositoryKey::path`] wrote.
    pub fn from_path(text: &str) -> Result<Self, NameError> {
        let (registry, name) = text.split_once('/').ok_or(NameError)?;
        let registry = if registry == HOSTED { RegistryName::hosted() } else { registry.parse()? };
        Ok(Self { registry, name: name.parse()? })
    }
}

impl fmt::Display for RepositoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_hosted() { self.name.fmt(f) } else { write!(f, "{}/{}", self.registry, self.name) }
    }
}

impl fmt::Debug for RepositoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for RepositoryKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.path())
    }
}

impl<'de> Deserialize<'de> for RepositoryKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::from_path(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_specifications() {
        for good in ["a", "library/alpine", "a.b_c__d-e---f/0", "team/blobs", "manifests"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        let long = "a/".repeat(127) + "ab";
        for bad in
            ["", "/", "a//b", "/a", "a/", "A", "a..b", "a___b", "a._b", "-a", "a-", "..", "a/../b", "é", "a\0", &long]
        {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn registries_are_hosts() {
        for good in ["docker.io", "localhost", "127.0.0.1:5000", "Registry-1.Docker.IO"] {
            assert!(good.parse::<RegistryName>().is_ok(), "{good}");
        }
        for bad in ["", "_hosted", "a_b", "host:", "host:99999", "host:x", "-a.b", "a..b", "[::1]:5000", "a/b", "a:1:2"]
        {
            assert!(bad.parse::<RegistryName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_read_as_it_was_written() {
        for path in ["docker.io/library/alpine", "_hosted/cache/app", "127.0.0.1:5000/a/b"] {
            assert_eq!(RepositoryKey::from_path(path).unwrap().path(), path);
        }
        assert_eq!(RepositoryKey::from_path("_hosted/cache/app").unwrap().to_string(), "cache/app");
    }
}
