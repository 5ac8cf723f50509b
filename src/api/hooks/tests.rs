use serde_json::json;

use super::*;
use crate::config::Secret;
use crate::forge::Pull;
use crate::forge::What;

const SHA: &str = "0123456789012345678901234567890123456789";
const ZERO: &str = "0000000000000000000000000000000000000000";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}

fn event(what: What) -> Said {
    Said::Event(Event { repository: "acme/app".to_owned(), what })
}

fn pushed() -> Said {
    event(What::Pushed { branch: "a/b".to_owned(), sha: Some(SHA.to_owned()) })
}

fn deleted() -> Said {
    event(What::Deleted { branch: "a/b".to_owned() })
}

fn pull() -> Pull {
    Pull { number: 7, branch: "a/b".to_owned(), sha: SHA.to_owned() }
}

#[test]
fn what_github_and_gitea_send_is_read() {
    let of = json!({ "full_name": "acme/app" });
    let push = |reference: &str, after: &str| json!({ "ref": reference, "after": after, "repository": of });
    let named = |kind: &str| json!({ "ref": "a/b", "ref_type": kind, "repository": of });
    let pulled = |action: &str, state: &str| {
        json!({ "action": action, "number": 7, "repository": of,
            "pull_request": { "number": 7, "state": state, "head": { "ref": "a/b", "sha": SHA } } })
    };
    for (event_name, document, want) in [
        ("ping", json!({ "zen": "Keep it logically awesome." }), Said::Ping),
        ("push", push("refs/heads/a/b", SHA), pushed()),
        ("push", push("refs/heads/a/b", ZERO), deleted()),
        ("push", push("refs/tags/v1", SHA), Said::Nothing),
        ("delete", named("branch"), deleted()),
        ("delete", named("tag"), Said::Nothing),
        ("create", named("branch"), event(What::Pushed { branch: "a/b".to_owned(), sha: None })),
        ("pull_request", pulled("opened", "open"), event(What::PullOpened(pull()))),
        ("pull_request", pulled("synchronize", "open"), event(What::PullOpened(pull()))),
        ("pull_request", pulled("closed", "closed"), event(What::PullClosed(pull()))),
        ("star", json!({ "action": "created" }), Said::Nothing),
    ] {
        assert_eq!(github::read(event_name, &document).unwrap(), want, "{event_name} {document}");
    }
    for (event_name, document) in [("push", json!({})), ("delete", named("branch")["ref"].clone())] {
        assert!(github::read(event_name, &document).is_err(), "{document}");
    }
}

#[test]
fn what_gitlab_sends_is_read() {
    let of = json!({ "path_with_namespace": "acme/app" });
    let push = |kind: &str, reference: &str, after: &str| json!({ "object_kind": kind, "ref": reference, "after": after, "checkout_sha": null, "project": of });
    let merge = |state: &str| {
        json!({ "object_kind": "merge_request", "project": of,
            "object_attributes": { "iid": 7, "id": 4711, "state": state, "source_branch": "a/b", "last_commit": { "id": SHA } } })
    };
    for (document, want) in [
        (push("push", "refs/heads/a/b", SHA), pushed()),
        (push("push", "refs/heads/a/b", ZERO), deleted()),
        (push("tag_push", "refs/tags/v1", SHA), Said::Nothing),
        (merge("opened"), event(What::PullOpened(pull()))),
        (merge("locked"), event(What::PullOpened(pull()))),
        (merge("closed"), event(What::PullClosed(pull()))),
        (merge("merged"), event(What::PullClosed(pull()))),
        (json!({ "object_kind": "pipeline" }), Said::Nothing),
        (json!([]), Said::Nothing),
    ] {
        assert_eq!(gitlab::read(&document).unwrap(), want, "{document}");
    }
    assert!(gitlab::read(&json!({ "object_kind": "push", "ref": "refs/heads/a" })).is_err());
}

#[test]
fn a_signature_is_of_the_body_and_with_the_secret() {
    let secret = Secret::new("It's a Secret to Everybody");
    let body = Bytes::from_static(b"Hello, World!");
    // The example of GitHub's documentation.
    let good = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let prefixed = format!("sha256={good}");
    let other = good.replace('7', "8");
    for (kind, name, value, want) in [
        (ForgeKind::Github, "x-hub-signature-256", prefixed.as_str(), true),
        (ForgeKind::Github, "x-hub-signature", prefixed.as_str(), false),
        (ForgeKind::Github, "x-hub-signature-256", other.as_str(), false),
        (ForgeKind::Github, "x-hub-signature-256", "sha256=", false),
        (ForgeKind::Github, "x-hub-signature-256", "It's a Secret to Everybody", false),
        (ForgeKind::Gitea, "x-gitea-signature", good, true),
        (ForgeKind::Gitea, "x-hub-signature-256", prefixed.as_str(), true),
        (ForgeKind::Gitea, "x-gitea-signature", other.as_str(), false),
        (ForgeKind::Gitlab, "x-gitlab-token", "It's a Secret to Everybody", true),
        (ForgeKind::Gitlab, "x-gitlab-token", "It's a Secret to Everybod", false),
        (ForgeKind::Gitlab, "x-gitlab-token", "", false),
        (ForgeKind::Gitlab, "x-hub-signature-256", prefixed.as_str(), false),
    ] {
        let right = signature::is_right(kind, &secret, &headers(&[(name, value)]), &body);
        assert_eq!(right, want, "{kind:?} {name}: {value}");
    }
    let changed = Bytes::from_static(b"Hello, World?");
    assert!(!signature::is_right(ForgeKind::Gitea, &secret, &headers(&[("x-gitea-signature", good)]), &changed));
}

#[test]
fn a_delivery_is_known_by_its_id_or_by_what_it_holds() {
    let (one, other) = (Bytes::from_static(b"1"), Bytes::from_static(b"2"));
    let id = |pairs: &[(&'static str, &str)], body| delivery_id(ForgeKind::Gitlab, &headers(pairs), body);
    assert_eq!(id(&[("idempotency-key", "k"), ("x-gitlab-event-uuid", "u")], &one), "k");
    assert_eq!(id(&[("x-gitlab-event-uuid", "u")], &one), "u");
    assert_ne!(id(&[], &one), id(&[], &other));
    assert_ne!(id(&[("idempotency-key", &"k".repeat(999))], &one), "k".repeat(999));
}

proptest::proptest! {
    #[test]
    fn no_body_makes_it_panic(name in "(push|delete|create|pull_request|x)", text in "(?s).{0,99}") {
        let body = Bytes::from(text);
        let said = headers(&[("x-github-event", &name), ("x-gitlab-event", "Push Hook")]);
        let _ = read(ForgeKind::Github, &said, &body);
        let _ = read(ForgeKind::Gitlab, &said, &body);
    }
}
