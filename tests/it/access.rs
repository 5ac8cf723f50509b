//! Who may see what, through HTTP: the rows "not authenticated", "no pull right" and "no push right" of the status
//! contract.

use crate::support::Answer;
use crate::support::Larder;
use crate::support::Upstream;
use crate::support::images::Image;
use crate::support::images::image;
use crate::support::images::referrer;
use crate::support::users;
use crate::support::users::basic;

struct Guarded {
    upstream: Upstream,
    larder: Larder,
    image: Image,
    _users: tempfile::TempDir,
}

/// larder with two users; alice may pull what is `library/…`, nobody may pull the rest.
async fn guarded(anonymous: &str) -> Guarded {
    let (users, file) = users::file(&["alice", "bob"]);
    let upstream = Upstream::start().await;
    let image = image(300, &[70_000]);
    upstream.add("library/app", "1", &image);
    upstream.add("acme/app", "1", &image);
    upstream.add("library/app", "", &referrer(1, &image, "application/vnd.test.sbom"));
    let access = serde_json::json!({
        "anonymous": serde_json::from_str::<serde_json::Value>(anonymous).unwrap(),
        "htpasswd": file,
        "rules": [{"who": "alice", "may": ["pull"], "repositories": ["docker.io/library/**"]}],
    });
    let larder = Larder::configured(&upstream, &format!(r#", "access": {access}"#), "").await;
    Guarded { upstream, larder, image, _users: users }
}

/// A method, a path and headers.
type Way = (&'static str, String, Vec<(&'static str, &'static str)>);

/// Every way to ask for something of a repository.
fn ways(repository: &str, image: &Image) -> Vec<Way> {
    let (blob, _) = image.blob(1);
    let at = |rest: String| format!("/v2/{repository}/{rest}");
    vec![
        ("GET", at("manifests/1".into()), vec![]),
        ("HEAD", at("manifests/1".into()), vec![]),
        ("GET", at(format!("manifests/{}", image.digest)), vec![]),
        ("HEAD", at(format!("manifests/{}", image.digest)), vec![("If-None-Match", "*")]),
        ("GET", at(format!("blobs/{blob}")), vec![]),
        ("HEAD", at(format!("blobs/{blob}")), vec![]),
        ("GET", at(format!("blobs/{blob}")), vec![("Range", "bytes=0-9")]),
        ("GET", at("tags/list".into()), vec![]),
        ("GET", at("tags/list?n=0".into()), vec![]),
        ("GET", at(format!("referrers/{}", image.digest)), vec![]),
        ("PUT", at("manifests/1".into()), vec![]),
        ("DELETE", at("manifests/1".into()), vec![]),
        ("POST", at("blobs/uploads/".into()), vec![]),
    ]
}

async fn ask(larder: &Larder, way: &Way, who: &str) -> Answer {
    let mut headers = way.2.clone();
    if !who.is_empty() {
        headers.push(("Authorization", who));
    }
    larder.ask(way.0, &way.1, &headers).await
}

/// What an answer tells: all of it but the date, the length of waits, and what of the request's own words it repeats.
fn told(answer: &Answer) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let mut headers: Vec<_> =
        answer.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
    headers.retain(|(name, _)| name != "date");
    for (_, value) in headers.iter_mut().filter(|(name, _)| name == "www-authenticate") {
        value.truncate(value.find(",scope=").unwrap_or(value.len()));
    }
    headers.sort();
    (answer.status, headers, answer.body.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_gets_one_401_for_everything_there_is_and_is_not() {
    let Guarded { larder, image, upstream, .. } = guarded("[]").await;
    // What is held is no different, nor what is stale.
    let alice = basic("alice", "alice-word");
    for way in ways("library/app", &image).iter().take(10) {
        assert_eq!(
            ask(&larder, way, &alice).await.status / 100,
            2 + u16::from(way.2.contains(&("If-None-Match", "*")))
        );
    }
    larder.settled().await;
    larder.advance(std::time::Duration::from_secs(3600));
    upstream.forget();
    let names =
        ["library/app", "acme/app", "library/nothing", "unknown.example.com/app", "run/7/library/app", "cache/x"];
    for who in ["", &basic("alice", "wrong"), &basic("nobody", "x"), "Bearer abc"] {
        for (at, first) in ways("library/app", &image).iter().enumerate() {
            let want = told(&ask(&larder, first, who).await);
            assert_eq!(want.0, 401, "{first:?} {who}");
            assert!(
                want.1.iter().any(|(n, v)| n == "www-authenticate" && v.starts_with("Bearer realm=\"http://")),
                "{first:?}"
            );
            for name in names {
                let way = &ways(name, &image)[at];
                assert_eq!(told(&ask(&larder, way, who).await), want, "{way:?} {who}");
                let way =
                    (way.0, format!("{}{}ns=ghcr.io", way.1, if way.1.contains('?') { "&" } else { "?" }), vec![]);
                assert_eq!(ask(&larder, &way, who).await.status, 401, "{way:?} {who}");
                let way = (way.0, way.1.replace("ghcr.io", "unknown.example.com"), vec![]);
                assert_eq!(ask(&larder, &way, who).await.status, 401, "{way:?} {who}");
            }
        }
        assert_eq!(ask(&larder, &("GET", "/v2/".into(), vec![]), who).await.status, 401, "{who}");
        assert_eq!(ask(&larder, &("HEAD", "/v2/".into(), vec![]), who).await.status, 401, "{who}");
    }
    assert_eq!(upstream.asked_anything(), 0, "nobody is asked for who may not know");
    assert_eq!(ask(&larder, &("GET", "/v2/".into(), vec![]), &alice).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_pull_is_told_what_is_told_of_nothing() {
    let Guarded { larder, image, .. } = guarded("[]").await;
    let bob = basic("bob", "bob-word");
    for (at, way) in ways("acme/app", &image).iter().enumerate() {
        let want = told(&ask(&larder, way, &bob).await);
        assert_eq!(want.0, 404, "{way:?}");
        for name in ["library/app", "library/nothing", "unknown.example.com/app", "run/7/library/app"] {
            assert_eq!(told(&ask(&larder, &ways(name, &image)[at], &bob).await), want, "{name} {way:?}");
        }
    }
    // Who may pull and no more is told that.
    let alice = basic("alice", "alice-word");
    for way in ways("library/app", &image).iter().skip(10) {
        assert_eq!(ask(&larder, way, &alice).await.status, 403, "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credential_of_another_registry_is_that_of_nobody_in_particular() {
    let Guarded { larder, image, upstream, .. } = guarded(r#"["pull"]"#).await;
    let hub = basic("canary-user", "canary-word");
    for who in [hub.as_str(), "Bearer canary-token", "Negotiate canary", "Basic canary!", ""] {
        for way in ways("acme/app", &image).iter().take(9) {
            let status = ask(&larder, way, who).await.status;
            assert!(matches!(status, 200 | 206 | 304), "{way:?} {who}: {status}");
        }
        assert_eq!(
            ask(&larder, &("GET", "/v2/unknown.example.com/app/tags/list".into(), vec![]), who).await.status,
            404
        );
    }
    for asked in upstream.asked(|_| true) {
        let shown = format!("{asked:?}");
        assert!(!shown.contains("canary") && !shown.contains(hub.trim_start_matches("Basic ")), "{shown}");
    }
    larder.settled().await;
    let metrics = crate::support::client::ask(larder.admin, "GET", "/metrics", &[], b"").await;
    assert!(!String::from_utf8_lossy(&metrics.body).contains("canary"));
    for file in crate::support::larder::files(&larder.data()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(6).any(|w| w == b"canary"), "{}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_patterns_leave_out_is_denied_whichever_way_it_is_asked_for() {
    let upstream = Upstream::start().await;
    let image = image(301, &[70_000]);
    for name in ["library/app", "acme/app", "library/secret"] {
        upstream.add(name, "1", &image);
    }
    let patterns = r#", "allow": ["library/**"], "deny": ["library/secret*"]"#;
    let larder = Larder::configured(&upstream, "", patterns).await;
    // The very bytes are here, by way of a repository that is allowed.
    for way in ways("library/app", &image).iter().take(10) {
        assert!(ask(&larder, way, "").await.status < 400, "{way:?}");
    }
    larder.settled().await;
    upstream.forget();
    for name in ["acme/app", "library/secret"] {
        for way in &ways(name, &image)[..10] {
            let answer = ask(&larder, way, "").await;
            assert_eq!(answer.status, 403, "{way:?}");
            assert!(way.0 == "HEAD" || answer.code() == "DENIED", "{way:?}");
        }
        let body = format!(r#"{{"refs": ["docker.io/{name}:1"]}}"#);
        let refreshed =
            crate::support::client::ask(larder.address, "POST", "/api/v1/refresh", &[], body.as_bytes()).await;
        assert_eq!(refreshed.json()["results"][0]["outcome"], "failed");
    }
    assert_eq!(upstream.asked_anything(), 0);
}

/// A token as `/token` gives it.
async fn token(larder: &Larder, query: &str, who: &str) -> Result<String, u16> {
    let headers: Vec<_> = [("Authorization", who)].into_iter().filter(|(_, who)| !who.is_empty()).collect();
    let answer = larder.ask("GET", &format!("/token?service=larder{query}"), &headers).await;
    if answer.status != 200 {
        assert!(answer.header("www-authenticate").starts_with("Basic "));
        return Err(answer.status);
    }
    let document = answer.json();
    assert_eq!(document["token"], document["access_token"]);
    assert_eq!((&document["expires_in"], answer.header("cache-control")), (&300.into(), "no-store"));
    Ok(format!("Bearer {}", document["token"].as_str().unwrap()))
}

/// dockerd asks `/v2/` first and goes to the upstream, without a word, where that can't be got over.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_credential_gets_a_token_and_what_anybody_may_pull() {
    let Guarded { upstream: _upstream, larder, image, .. } = guarded(r#"["pull"]"#).await;
    let refused = larder.get("/v2/").await;
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"larder\"", larder.address);
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, realm.as_str()));
    let hub = basic("hub-user", "hub-password");
    for who in ["", hub.as_str()] {
        let anonymous = token(&larder, "&scope=repository:library/app:pull", who).await.unwrap();
        assert_eq!(larder.ask("GET", "/v2/", &[("Authorization", &anonymous)]).await.status, 200);
        let pulled = larder.ask("GET", "/v2/library/app/manifests/1", &[("Authorization", &anonymous)]).await;
        assert!(pulled.status == 200 && pulled.body[..] == image.manifest[..]);
        let path = "/v2/cache/app/manifests/1";
        let pushed = larder.ask("PUT", path, &[("Authorization", &anonymous)]).await;
        let scope = ",scope=\"repository:cache/app:pull,push\"";
        assert_eq!(pushed.status, 401);
        assert!(pushed.header("www-authenticate").ends_with(scope), "{}", pushed.header("www-authenticate"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_stands_for_the_password_and_only_for_a_while() {
    let Guarded { upstream: _upstream, larder, .. } = guarded("[]").await;
    let alice = token(&larder, "&scope=repository:library/app:pull", &basic("alice", "alice-word")).await.unwrap();
    let pull =
        async |who: &str| larder.ask("GET", "/v2/library/app/manifests/1", &[("Authorization", who)]).await.status;
    assert_eq!(pull(&alice).await, 200);
    assert_eq!(pull(&token(&larder, "", "").await.unwrap()).await, 401, "a token that is nobody's opens nothing more");
    // Who logs in names no repository, and who wants to write means it.
    let wrong = basic("alice", "bob-word");
    assert_eq!(token(&larder, "", &wrong).await, Err(401));
    assert_eq!(token(&larder, "&scope=repository:library/app:pull,push", &wrong).await, Err(401));
    let changed = format!("{alice}x");
    assert_eq!(pull(&changed).await, 401);
    larder.clock.advance(std::time::Duration::from_mins(7));
    assert_eq!(pull(&alice).await, 401);
}
