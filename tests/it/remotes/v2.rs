//! The distribution API in front of a model, as each of the dialects has it: token service, lists in pages, manifests.

use base64::Engine as _;
use larder::oci::Digest;

use super::PASSWORD;
use super::USER;
use super::model::Model;
use super::server::Reply;
use super::server::Seen;

/// What a token is good for stands in it: no state, and a wrong scope shows.
fn token(scope: &str) -> String {
    format!("token-{}", hex::encode(scope))
}

pub fn basic() -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}")))
}

pub fn challenge(base: &str, scope: &str) -> Reply {
    let realm = format!(r#"Bearer realm="{base}/token",service="registry.test",scope="{scope}""#);
    Reply::error(401, "UNAUTHORIZED").with("www-authenticate", realm)
}

/// The token service, which wants the password.
fn token_service(seen: &Seen) -> Reply {
    if seen.header("authorization") != basic() {
        return Reply::error(401, "UNAUTHORIZED");
    }
    let scope = seen.parameter("scope").unwrap_or_default();
    Reply::json(200, &serde_json::json!({"token": token(&scope), "expires_in": 300}))
}

/// One request to `/v2/…` or the token service; none where it is not to these.
pub fn front(model: &mut Model, seen: &Seen, base: &str) -> Option<Reply> {
    if seen.path == "/token" && seen.method == "GET" {
        return Some(token_service(seen));
    }
    let path = seen.path.strip_prefix("/v2/")?;
    if path == "_catalog" && seen.method == "GET" {
        let scope = "registry:catalog:*";
        return Some(if authorized(seen, scope) { catalog(model, seen) } else { challenge(base, scope) });
    }
    let parts: Vec<&str> = path.rsplitn(3, '/').collect();
    let [last, verb, name] = parts[..] else { return None };
    let (name, last) = (name.to_owned(), last.to_owned());
    let scope = format!("repository:{name}:{}", if seen.method == "DELETE" { "delete" } else { "pull" });
    if !authorized(seen, &scope) {
        return Some(challenge(base, &scope));
    }
    match (seen.method.as_str(), verb) {
        ("GET", "tags") if last == "list" => Some(tags(model, seen, &name)),
        ("GET" | "HEAD", "manifests") => Some(manifest(model, &name, &last)),
        ("DELETE", "manifests") => Some(delete(model, &name, &last)),
        _ => None,
    }
}

pub fn authorized(seen: &Seen, scope: &str) -> bool {
    seen.header("authorization") == format!("Bearer {}", token(scope))
}

fn number(seen: &Seen, name: &str, default: usize) -> usize {
    seen.parameter(name).map_or(default, |text| text.parse().unwrap())
}

fn catalog(model: &Model, seen: &Seen) -> Reply {
    let names: Vec<&str> = model.repositories.keys().map(String::as_str).collect();
    page(&names, seen, model.page(), "/v2/_catalog", "repositories")
}

fn tags(model: &mut Model, seen: &Seen, name: &str) -> Reply {
    let page_size = model.page();
    let Some(held) = model.repositories.get(name) else { return Reply::error(404, "NAME_UNKNOWN") };
    let tags: Vec<&str> = held.tags.keys().map(String::as_str).collect();
    page(&tags, seen, page_size, &format!("/v2/{name}/tags/list"), "tags")
}

/// A page of names, with the link to the next.
fn page(all: &[&str], seen: &Seen, max: usize, path: &str, key: &str) -> Reply {
    let wanted = number(seen, "n", 100).min(max);
    let last = seen.parameter("last").unwrap_or_default();
    let rest: Vec<&str> = all.iter().filter(|name| **name > last.as_str()).copied().collect();
    let page = &rest[..wanted.min(rest.len())];
    let reply = Reply::json(200, &serde_json::json!({"name": "x", key: page}));
    match page.last() {
        Some(last) if page.len() < rest.len() => {
            reply.with("link", format!("<{path}?n={wanted}&last={last}>; rel=\"next\""))
        }
        _ => reply,
    }
}

fn manifest(model: &Model, name: &str, reference: &str) -> Reply {
    let Some(held) = model.repositories.get(name) else { return Reply::error(404, "NAME_UNKNOWN") };
    let digest = held.tags.get(reference).copied().or_else(|| reference.parse::<Digest>().ok());
    match digest.and_then(|digest| Some((digest, held.manifests.get(&digest)?))) {
        None => Reply::error(404, "MANIFEST_UNKNOWN"),
        Some((digest, held)) => Reply::empty(200)
            .with("content-type", held.media_type)
            .with("docker-content-digest", digest.to_string())
            .body(held.bytes.clone()),
    }
}

/// OCI 1.1: a tag alone, or a manifest with all of its tags.
fn delete(model: &mut Model, name: &str, reference: &str) -> Reply {
    let Some(held) = model.repositories.get_mut(name) else { return Reply::error(404, "NAME_UNKNOWN") };
    let deleted = match reference.parse::<Digest>() {
        Ok(digest) => held.delete_manifest(&digest),
        Err(_) => held.delete_tag(reference).is_some(),
    };
    if deleted { Reply::empty(202) } else { Reply::error(404, "MANIFEST_UNKNOWN") }
}
