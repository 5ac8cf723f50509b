//! dockerd's `daemon.json`: the mirror of Docker Hub, and what pushes need; made new, or merged into the one that is there.

use serde_json::Map;
use serde_json::Value;
use url::Host;

use super::ClientFile;
use super::Placing;
use super::Target;

/// Keys of `daemon.json`.
const MIRRORS: &str = "registry-mirrors";
const INSECURE: &str = "insecure-registries";

/// The file of a dockerd that has none yet.
pub(super) fn daemon_json(target: &Target) -> ClientFile {
    let mut settings = Map::new();
    settings.insert(MIRRORS.to_owned(), Value::from(vec![target.hub_mirror()]));
    if is_insecure(target) {
        settings.insert(INSECURE.to_owned(), Value::from(vec![target.authority()]));
    }
    ClientFile {
        path: "/etc/docker/daemon.json",
        content: pretty(settings),
        placing: Placing::Merged,
        then: format!(
            "dockerd takes it up with `systemctl reload docker`. `registry-mirrors` is for Docker Hub alone; with the \
             containerd image store every other registry works too: put the file of `client-config containerd` at \
             /etc/docker/certs.d/<host>/hosts.toml. A build cache: `docker build --build-arg BUILDKIT_INLINE_CACHE=1 \
             --cache-from {cache} --tag {cache} .`, then `docker push {cache} || true`.",
            cache = target.cache()
        ),
    }
}

/// Whether dockerd must be told that the server speaks no TLS: pushes to it ask for TLS, except on a loopback address.
/// Mirrors don't: their URL says it.
fn is_insecure(target: &Target) -> bool {
    let loopback = match target.url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    target.is_plain() && !loopback
}

fn pretty(settings: Map<String, Value>) -> String {
    format!("{:#}\n", Value::Object(settings))
}

/// Puts our mirror first among those of an existing `daemon.json`, us among its insecure registries where that is needed,
/// and leaves everything else as it is.
///
/// # Errors
///
/// The file is not JSON, or not an object, or its `registry-mirrors` or `insecure-registries` is not a list.
pub fn merge_daemon_json(existing: &str, target: &Target) -> Result<String, String> {
    let parsed: Value = if existing.trim().is_empty() {
        Value::Object(Map::new())
    } else {
        serde_json::from_str(existing).map_err(|error| format!("it is not JSON: {error}"))?
    };
    let Value::Object(mut settings) = parsed else { return Err("it is not a JSON object".to_owned()) };
    put_first(&mut settings, MIRRORS, &target.hub_mirror())?;
    if is_insecure(target) {
        put_first(&mut settings, INSECURE, target.authority())?;
    }
    Ok(pretty(settings))
}

/// Puts an entry in front of a list, which may be missing, and takes it out of its other places.
fn put_first(settings: &mut Map<String, Value>, key: &str, ours: &str) -> Result<(), String> {
    let mut entries = vec![Value::from(ours)];
    match settings.remove(key) {
        None | Some(Value::Null) => {}
        Some(Value::Array(others)) => {
            let is_ours = |entry: &Value| entry.as_str().is_some_and(|text| text.trim_end_matches('/') == ours);
            entries.extend(others.into_iter().filter(|entry| !is_ours(entry)));
        }
        Some(_) => return Err(format!("its {key} is not a list")),
    }
    settings.insert(key.to_owned(), Value::Array(entries));
    Ok(())
}
