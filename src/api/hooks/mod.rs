//! `POST /hooks/<name>`: what a forge tells of its repositories (docs/how-to/branches.md). One file a sender.
//!
//! The body is read raw and bounded, then its signature is checked, then it is parsed. What it says is a hint: `forge`
//! asks the forge itself before anything is decided. What nobody here has a use for is 204, never an error: forges stop
//! sending to a hook that fails.

mod github;
mod gitlab;
mod signature;

use bytes::Bytes;
use http::HeaderMap;
use http::StatusCode;
use http::header;
use quick_cache::sync::Cache as Bounded;
use serde_json::Value;

use crate::config;
use crate::config::forge::ForgeKind;
use crate::forge::Event;
use crate::forge::Forges;
use crate::forge::Heard;
use crate::oci::Digest;
use crate::oci::ErrorCode;

use super::Answer;
use super::Api;
use super::Asked;
use super::Sent;
use super::failure::Failure;
use super::receive;
use super::route::Problem;
use super::without_body;

/// The longest id of a delivery that is taken for one.
const ID_BYTES_MAX: usize = 128;

/// Takes what forges send.
#[derive(Debug)]
pub(super) struct Hooks {
    forges: Forges,
    /// Deliveries that were taken: a forge sends again what it has no answer to.
    seen: Bounded<(String, String), ()>,
}

/// What a delivery says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// That the hook is set up.
    Ping,
    /// What happened.
    Event(Event),
    /// Nothing that anybody here has a use for.
    Nothing,
}

/// A payload that is not what its sender documents.
#[derive(Debug, thiserror::Error)]
#[error("the webhook's body has no {0}")]
struct Malformed(&'static str);

impl Hooks {
    pub(super) fn new(forges: Forges, limits: &config::Limits) -> Self {
        Self { forges, seen: Bounded::new(limits.deliveries as usize) }
    }
}

/// Answers a delivery to the hook called `name`.
pub(super) async fn answer<B: Sent>(api: &Api, asked: &Asked<'_>, name: &str, body: &mut B) -> Answer {
    let hooks = &api.hooks;
    // A hook without a secret is none: anybody could tell anything.
    let found = hooks.forges.settings(name);
    let found = found.as_deref().and_then(|forge| Some((forge.kind, forge.webhook_secret.as_ref()?)));
    let Some((kind, secret)) = found else { return Err(Problem::Nowhere.into()) };
    let body = receive::bounded(api, asked, body, api.limits.hook_bytes).await?;
    let headers = &asked.head.headers;
    let counted = |outcome| api.metrics.hook(name, outcome);
    if !signature::is_right(kind, secret, headers, &body) {
        counted("refused");
        let message = "the webhook's secret is not the one that is configured";
        return Err(Failure::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message));
    }
    let delivery = (name.to_owned(), delivery_id(kind, headers, &body));
    if hooks.seen.get(&delivery).is_some() {
        counted("repeated");
        return Ok(without_body(StatusCode::NO_CONTENT));
    }
    let said = read(kind, headers, &body).inspect_err(|_| counted("malformed"))?;
    let status = match said {
        Said::Ping => {
            counted("ping");
            StatusCode::OK
        }
        Said::Nothing => {
            counted("ignored");
            StatusCode::NO_CONTENT
        }
        Said::Event(event) => {
            let repository = event.repository.clone();
            let heard = hooks.forges.hear(name, event).await.map_err(|error| Failure::from(&error))?;
            tracing::debug!(hook = name, repository, ?heard, "a webhook was taken");
            counted(if heard == Heard::News { "news" } else { "known" });
            StatusCode::NO_CONTENT
        }
    };
    hooks.seen.insert(delivery, ());
    Ok(without_body(status))
}

fn read(kind: ForgeKind, headers: &HeaderMap, body: &Bytes) -> Result<Said, Failure> {
    let bad = |message| Failure::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message);
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let event = match kind {
        ForgeKind::Github => text("x-github-event"),
        ForgeKind::Gitea => text("x-gitea-event").or(text("x-forgejo-event")).or(text("x-github-event")),
        ForgeKind::Gitlab => text("x-gitlab-event"),
    };
    let event = event.ok_or_else(|| bad("the webhook does not say what happened: its event header is missing"))?;
    let document = document(headers, body).ok_or_else(|| bad("the webhook's body is no JSON document"))?;
    let said = match kind {
        ForgeKind::Github | ForgeKind::Gitea => github::read(event, &document),
        ForgeKind::Gitlab => gitlab::read(&document),
    };
    said.map_err(|malformed| bad("the webhook's body is not one of its event").because(&malformed))
}

/// The document, which GitHub and Gitea send as a form unless they are told otherwise.
fn document(headers: &HeaderMap, body: &Bytes) -> Option<Value> {
    let media_type = headers.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    if !media_type.starts_with(b"application/x-www-form-urlencoded") {
        return serde_json::from_slice(body).ok();
    }
    let mut fields = url::form_urlencoded::parse(body);
    let (_, payload) = fields.find(|(name, _)| name == "payload")?;
    serde_json::from_str(&payload).ok()
}

/// What tells a delivery from others: its id, or what it holds.
fn delivery_id(kind: ForgeKind, headers: &HeaderMap, body: &Bytes) -> String {
    let names: &[&str] = match kind {
        ForgeKind::Github => &["x-github-delivery"],
        ForgeKind::Gitea => &["x-gitea-delivery", "x-forgejo-delivery", "x-github-delivery"],
        ForgeKind::Gitlab => &["idempotency-key", "x-gitlab-event-uuid"],
    };
    let mut ids = names.iter().filter_map(|name| headers.get(*name)?.to_str().ok());
    let id = ids.find(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX);
    id.map_or_else(|| Digest::of(body).to_string(), str::to_owned)
}

/// A text in a document.
fn text<'a>(document: &'a Value, pointer: &'static str) -> Result<&'a str, Malformed> {
    document.pointer(pointer).and_then(Value::as_str).ok_or(Malformed(pointer))
}

/// The branch of a `ref`; none for a tag.
fn branch(reference: &str) -> Option<&str> {
    reference.strip_prefix("refs/heads/")
}

/// A commit that stands for none.
fn is_zero(sha: &str) -> bool {
    !sha.is_empty() && sha.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests;
