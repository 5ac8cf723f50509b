//! docker's `config.json`, also as podman and pull secrets write it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::AsyncReadExt;

use crate::config::Secret;
use crate::config::upstream::Upstream;
use crate::net::address::Origin;

use super::Login;
use super::helper;
use super::helper::Error;

/// Bytes of the file that are read.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Option<Entry>>,
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Entry {
    fn login(&self) -> Option<Login> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Some(Login::Identity(Secret::new(&token)));
        }
        if let (Some(username), Some(password)) = (given(&self.username), given(&self.password)) {
            return helper::login(username, &password);
        }
        let text = String::from_utf8(STANDARD.decode(given(&self.auth)?.trim()).ok()?).ok()?;
        let (username, password) = text.split_once(':')?;
        helper::login(username.to_owned(), password.trim_end_matches('\0'))
    }
}

/// The names under which docker keeps the credential of an upstream, the likeliest first.
pub(super) fn keys(config: &Upstream) -> Vec<String> {
    let mut keys = Vec::new();
    if config.host == "docker.io" {
        keys.extend(["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"]);
    } else {
        keys.push(config.host.as_str());
    }
    let mut keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
    for url in &config.endpoints {
        let Some(origin) = Origin::of(url) else { continue };
        let key = url.port().map_or(origin.host().to_owned(), |port| format!("{}:{port}", origin.host()));
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// A key without its scheme and path: docker writes both forms.
fn plain(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().unwrap_or(key)
}

/// Looks the credential up: a helper for that very registry, then the store, then what is in the file.
pub(super) async fn look_up(path: &Path, keys: &[String], limit: Duration) -> Result<Option<Login>, Error> {
    let shown = path.display().to_string();
    let failed = |source| Error::File { path: path.display().to_string(), source };
    let mut bytes = Vec::new();
    let opened = tokio::fs::File::open(path).await.map_err(failed)?;
    opened.take(FILE_BYTES_MAX).read_to_end(&mut bytes).await.map_err(failed)?;
    // The parser's message would quote what stands there.
    let file: File = serde_json::from_slice(&bytes).map_err(|_| Error::Config { path: shown })?;
    for key in keys {
        let named = file.cred_helpers.iter().find(|(name, _)| plain(name) == plain(key));
        if let Some((_, name)) = named
            && let Some(login) = helper::get(name, key, limit).await?
        {
            return Ok(Some(login));
        }
    }
    let written = keys.iter().find_map(|key| {
        let mut entries = file.auths.iter().filter(|(name, _)| plain(name) == plain(key));
        entries.find_map(|(_, entry)| entry.as_ref()?.login())
    });
    match (written, &file.creds_store) {
        (None, Some(store)) if !store.is_empty() => helper::get_first(store, keys, limit).await,
        (written, _) => Ok(written),
    }
}
