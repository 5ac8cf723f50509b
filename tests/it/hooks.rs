//! What forges tell at `/hooks/<name>`: believed with the secret only, and once.

use std::path::Path;

use ring::hmac;
use serde_json::json;

use crate::forges::ask_once;
use crate::support::Answer;
use crate::support::Larder;
use crate::support::Upstream;
use crate::support::client;
use crate::support::forge::Forge;
use crate::support::forge::KINDS;
use crate::support::forge::Kind;
use crate::support::forge::TOKEN;

const SECRET: &str = "webhook-secret";
const ZERO: &str = "0000000000000000000000000000000000000000";

struct Told {
    larder: Larder,
    _upstream: Upstream,
    _folder: tempfile::TempDir,
}

impl Told {
    /// larder with the forge as `hub`, which an earlier process had asked for `acme/app`, and with `open`, a forge
    /// without a secret.
    async fn by(forge: &Forge, kind: Kind, more: &str) -> Self {
        let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start().await);
        ask_once(forge, kind, folder.path()).await;
        let secret = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            file.display().to_string()
        };
        let word = match kind {
            Kind::Github => "github",
            Kind::Gitlab => "gitlab",
            Kind::Gitea => "gitea",
        };
        let forges = json!({
            "hub": { "kind": word, "api": forge.api(), "token_file": secret("token", TOKEN),
                "webhook_secret_file": secret("secret", SECRET) },
            "open": { "kind": word, "api": forge.api() },
        });
        let data = Path::new(folder.path()).join("data");
        let larder = Larder::configured_at(&upstream, &data, &format!(r#", "forges": {forges} {more}"#)).await;
        Self { larder, _upstream: upstream, _folder: folder }
    }

    async fn send(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        client::ask(self.larder.address, "POST", path, headers, body.as_bytes()).await
    }

    /// Sends a delivery with its secret.
    async fn tell(&self, kind: Kind, event: &str, id: &str, body: &str) -> u16 {
        let (signature, prefixed) = (signed(body), format!("sha256={}", signed(body)));
        let headers = match kind {
            Kind::Github => {
                vec![("X-GitHub-Event", event), ("X-GitHub-Delivery", id), ("X-Hub-Signature-256", &prefixed)]
            }
            Kind::Gitlab => vec![("X-Gitlab-Event", event), ("Idempotency-Key", id), ("X-Gitlab-Token", SECRET)],
            Kind::Gitea => {
                vec![("X-Gitea-Event", event), ("X-Gitea-Delivery", id), ("X-Gitea-Signature", &signature)]
            }
        };
        self.send("/hooks/hub", &headers, body).await.status
    }

    /// How many deliveries ended so.
    async fn count(&self, outcome: &str) -> u64 {
        let metrics = self.larder.get("/metrics").await;
        let text = String::from_utf8_lossy(&metrics.body).into_owned();
        let line = format!("larder_hooks_total{{hook=\"hub\",outcome=\"{outcome}\"}} ");
        text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
    }
}

fn signed(body: &str) -> String {
    hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), body.as_bytes()))
}

/// A push that ends a branch.
fn ended(kind: Kind, repository: &str, branch: &str) -> String {
    let of = if kind == Kind::Gitlab { "project" } else { "repository" };
    let key = if kind == Kind::Gitlab { "path_with_namespace" } else { "full_name" };
    json!({ "object_kind": "push", "ref": format!("refs/heads/{branch}"), "after": ZERO, of: { key: repository } })
        .to_string()
}

fn push_event(kind: Kind) -> &'static str {
    if kind == Kind::Gitlab { "Push Hook" } else { "push" }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_with_the_secret_is_taken_once() {
    for kind in KINDS {
        let forge = Forge::start(kind).await;
        forge.put("acme/app", &["a", "main"]);
        let told = Told::by(&forge, kind, "").await;
        let body = ended(kind, "acme/app", "a");
        assert_eq!(told.tell(kind, push_event(kind), "1", &body).await, 204, "{kind:?}");
        assert_eq!(told.count("news").await, 1, "{kind:?}");
        assert_eq!(told.tell(kind, push_event(kind), "1", &body).await, 204, "{kind:?}");
        assert_eq!(told.count("repeated").await, 1, "{kind:?}: it came again");
        assert_eq!(told.tell(kind, push_event(kind), "2", &body).await, 204, "{kind:?}");
        let unasked = ended(kind, "acme/other", "a");
        assert_eq!(told.tell(kind, push_event(kind), "3", &unasked).await, 204, "{kind:?}");
        assert_eq!(told.count("known").await, 2, "{kind:?}: it is gone already; nobody asks for the other");
        assert_eq!(told.tell(kind, "star", "4", r#"{"object_kind":"star"}"#).await, 204, "{kind:?}");
        assert_eq!(told.count("ignored").await, 1, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_believed_without_the_secret() {
    for kind in KINDS {
        let forge = Forge::start(kind).await;
        forge.put("acme/app", &["a", "main"]);
        let told = Told::by(&forge, kind, "").await;
        let body = ended(kind, "acme/app", "a");
        let other = format!("sha256={}", signed("another body"));
        for headers in [
            vec![],
            vec![("X-Hub-Signature-256", other.as_str()), ("X-Gitea-Signature", "00"), ("X-Gitlab-Token", "wrong")],
            vec![("X-Hub-Signature", "sha1=00"), ("X-Gitlab-Token", "")],
        ] {
            let event = ("X-GitHub-Event", "push");
            let headers: Vec<_> = headers.into_iter().chain([event, ("X-Gitlab-Event", "Push Hook")]).collect();
            let answer = told.send("/hooks/hub", &headers, &body).await;
            assert_eq!((answer.status, answer.code().as_str()), (403, "DENIED"), "{kind:?} {headers:?}");
        }
        assert_eq!((told.count("refused").await, told.count("news").await), (3, 0));
        // A forge without a secret has no hook, as one that nobody configured.
        let open = told.send("/hooks/open", &[("X-Gitlab-Token", "")], &body).await;
        let none = told.send("/hooks/none", &[], &body).await;
        assert_eq!((open.status, none.status), (404, 404));
        assert_eq!(open.body, none.body);
        assert_eq!(told.larder.get("/hooks/hub").await.status, 405);
        let admin = client::ask(told.larder.admin, "POST", "/hooks/hub", &[], b"").await;
        assert_eq!(admin.status, 404, "the admin listener takes none");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_forms_and_what_is_too_large_or_malformed() {
    let forge = Forge::start(Kind::Github).await;
    forge.put("acme/app", &["a", "main"]);
    let told = Told::by(&forge, Kind::Github, r#", "limits": {"hook_bytes": "64KiB"}"#).await;
    assert_eq!(told.tell(Kind::Github, "ping", "1", r#"{"zen":"x"}"#).await, 200);
    let document = ended(Kind::Github, "acme/app", "a");
    let form = url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &document).finish();
    let signature = format!("sha256={}", signed(&form));
    let headers = [
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("X-GitHub-Event", "push"),
        ("X-Hub-Signature-256", signature.as_str()),
    ];
    assert_eq!(told.send("/hooks/hub", &headers, &form).await.status, 204);
    assert_eq!(told.count("news").await, 1, "the document was a form's");
    assert_eq!(told.tell(Kind::Github, "push", "2", "{}").await, 400);
    assert_eq!(told.tell(Kind::Github, "push", "2", "no JSON").await, 400, "what failed may come again");
    assert_eq!(told.count("malformed").await, 2);
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(64 << 10));
    assert_eq!(told.tell(Kind::Github, "push", "3", &large).await, 413);
}
