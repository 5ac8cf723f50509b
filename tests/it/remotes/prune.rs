//! larder as a whole before registries that are not its own: what a plan says beforehand, and what is sent.

use std::io::Write as _;

use larder::oci::Digest;
use serde_json::Value;
use serde_json::json;

use super::PASSWORD;
use super::USER;
use super::ghcr;
use super::server::Reply;
use super::server::Seen;
use super::server::Server;
use super::v2;
use crate::support::Answer;
use crate::support::Larder;
use crate::support::client;

const NAME: &str = "acme/app";

/// A policy over the registry; the password lies in a file that lives as long as this.
struct Before {
    larder: Larder,
    _password: tempfile::NamedTempFile,
}

async fn before(server: &Server, adapter: &str, select: &str) -> Before {
    let mut password = tempfile::NamedTempFile::new().unwrap();
    write!(password, "{PASSWORD}").unwrap();
    let mut remote = json!({
        "adapter": adapter, "endpoint": server.url(),
        "credential": {"username": USER, "password_file": password.path()},
    });
    if adapter != "oci" {
        remote["api"] = server.url().into();
    }
    let policy = json!({
        "name": "there", "repositories": [format!("reg.test/{NAME}")], "select": [select],
        "keep": [{"tags": ["stable"]}], "grace": "0s", "at_most": {"share": "100%"},
    });
    let config = json!({"retention": {"policies": [policy], "remotes": {"reg.test": remote}}});
    Before { larder: Larder::with(&config.to_string()).await, _password: password }
}

impl Before {
    async fn post(&self, path: &str, body: &Value) -> Answer {
        let headers = [("Content-Type", "application/json")];
        client::ask(self.larder.admin, "POST", path, &headers, body.to_string().as_bytes()).await
    }

    async fn plan(&self) -> Value {
        let answer = self.post("/api/v1/prune/plan", &json!({"remote": "reg.test"})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Tag and outcome of each.
    async fn apply(&self, plan: &Value) -> Vec<(String, String)> {
        let body = json!({"plan": plan["plan"], "mac": plan["mac"]});
        let applied = self.post("/api/v1/prune/apply", &body).await.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let results = applied["results"].as_array().unwrap_or_else(|| panic!("{applied}"));
        let mut results: Vec<_> = results.iter().map(|one| (text(&one["tag"]), text(&one["outcome"]))).collect();
        results.sort();
        results
    }
}

/// `main-0000001` and `stable` mean one image, `pr-0000002` another.
fn fill(server: &Server) -> [Digest; 2] {
    server.model(|model| {
        let (shared, own) = (model.image(NAME, "shared", &[1], None), model.image(NAME, "own", &[2], None));
        for (tag, digest) in [("main-0000001", shared), ("stable", shared), ("pr-0000002", own)] {
            model.tag(NAME, tag, digest);
        }
        model.page = 2;
        [shared, own]
    })
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(tag, outcome)| ((*tag).to_owned(), (*outcome).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_the_calls_and_refuses_what_a_kept_tag_shares() {
    let server = Server::start(ghcr::front).await;
    let [shared, own] = fill(&server);
    let before = before(&server, "ghcr", "{branch|slug}-{sha:7}").await;
    let plan = before.plan().await;
    assert_eq!(server.deletes(), Vec::<String>::new());
    let id = server.model(|model| model.repository(NAME).manifests[&own].id);
    let calls = plan["plan"]["calls"].as_array().unwrap();
    let want = format!("DELETE {}/orgs/acme/packages/container/app/versions/{id}", server.url());
    assert_eq!((calls.len(), calls[0]["call"]["request"].as_str()), (1, Some(want.as_str())), "{plan}");
    let refused = plan["plan"]["refused"].as_array().unwrap();
    assert_eq!((refused.len(), refused[0]["tag"].as_str()), (1, Some("main-0000001")), "{plan}");
    assert!(refused[0]["why"].as_str().unwrap().contains("kept tag stable means the same manifest"), "{plan}");
    let results = before.apply(&plan).await;
    assert!(results.contains(&("pr-0000002".to_owned(), "deleted".to_owned())), "{results:?}");
    assert_eq!(server.deletes().len(), 1);
    let left = server.model(|model| model.repository(NAME).clone());
    assert!(left.tags.len() == 2 && left.manifests.contains_key(&shared));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_can_not_delete_tags_loses_nothing() {
    let server = Server::start(v2::front).await;
    fill(&server);
    server.script(|seen: &Seen| {
        let is_delete = seen.method == http::Method::DELETE && v2::authorized(seen, "repository:acme/app:delete");
        is_delete.then(|| Reply::error(400, "DIGEST_INVALID"))
    });
    let before = before(&server, "oci", "{branch|slug}-{sha:7}").await;
    let plan = before.plan().await;
    assert_eq!(plan["plan"]["deletes"].as_array().unwrap().len(), 2, "{plan}");
    let results = before.apply(&plan).await;
    assert_eq!(results, pairs(&[("main-0000001", "refused"), ("pr-0000002", "refused")]));
    assert_eq!(server.deletes(), ["DELETE /v2/acme/app/manifests/main-0000001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_fails_on_page_2_deletes_nothing() {
    for adapter in ["oci", "ghcr"] {
        let server = Server::start(if adapter == "oci" { v2::front } else { ghcr::front }).await;
        fill(&server);
        let before = before(&server, adapter, "{branch|slug}-{sha:7}").await;
        let plan = before.plan().await;
        server.script(|seen: &Seen| {
            let is_page_2 = seen.query.contains("last=") || seen.parameter("page").as_deref() == Some("2");
            is_page_2.then(|| Reply::error(500, "UNKNOWN"))
        });
        let failed = before.plan().await;
        assert_eq!(failed["plan"]["deletes"], json!([]), "{failed}");
        assert_eq!(failed["plan"]["failed"][0]["what"], "reg.test/acme/app", "{failed}");
        let results = before.apply(&plan).await;
        assert!(!results.is_empty() && results.iter().all(|(_, outcome)| outcome == "kept"), "{results:?}");
        assert_eq!(server.deletes(), Vec::<String>::new());
    }
}
