use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;

use super::Action::Delete;
use super::Action::Pull;
use super::Action::Push;
use super::*;
use crate::config::Contents;
use crate::config::Secret;
use crate::config::access::Rule;
use crate::config::access::Who;
use crate::config::upstream::Credential;
use crate::oci::Descriptor;
use crate::oci::Tag;
use crate::repository::Build;
use crate::repository::OwnNames;
use crate::repository::Settings;
use crate::upstream::Ask;
use crate::upstream::Error as Fault;
use crate::upstream::Fault as Kind;
use crate::upstream::Identity;
use crate::upstream::Incoming;
use crate::upstream::NoConnection;
use crate::upstream::RawManifest;
use crate::upstream::Resolved;
use crate::upstream::Result as Answer;
use crate::upstream::State;
use crate::upstream::TagPage;
use crate::upstream::Upstream;
use crate::upstream::Wanted;

/// What the upstream says to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Yes,
    Absent,
    No,
    Nothing,
}

/// An upstream that answers as the script says, and refuses to be asked otherwise.
#[derive(Debug, Default)]
struct Scripted {
    answers: Mutex<VecDeque<Says>>,
    asked: Mutex<Vec<String>>,
}

impl Scripted {
    fn answer<T>(&self, ask: &Ask, what: &str, found: T) -> Answer<Option<T>> {
        assert_eq!(ask.identity, Identity::Anonymous, "visibility is asked without the credential");
        self.asked.lock().unwrap().push(format!("{what} {}", ask.name));
        let scripted = self.answers.lock().unwrap().pop_front();
        let by_name = match ask.name.as_str().split('/').next() {
            Some("always-open") => Some(Says::Yes),
            Some("always-private") => Some(Says::No),
            _ => None,
        };
        match scripted.or(by_name).expect("the upstream is asked no more than the test says") {
            Says::Yes => Ok(Some(found)),
            Says::Absent => Ok(None),
            Says::No => Err(Fault::new(Kind::Denied, "asking")),
            Says::Nothing => Err(Fault::new(Kind::NoConnection(NoConnection::Connect), "asking")),
        }
    }

    fn say(&self, answers: &[Says]) {
        self.answers.lock().unwrap().extend(answers);
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[async_trait]
impl Upstream for Scripted {
    async fn resolve(&self, ask: &Ask, _: &Reference) -> Answer<Option<Resolved>> {
        self.answer(ask, "resolve", Resolved { digest: Digest::of(b""), media_type: None, size: None })
    }
    async fn manifest(&self, _: &Ask, _: &Reference) -> Answer<Option<RawManifest>> {
        panic!("a question of permission spends no pull")
    }
    async fn blob(&self, _: &Ask, _: &Digest, _: &Wanted) -> Answer<Option<Incoming>> {
        panic!("a question of permission moves no bytes")
    }
    async fn blob_size(&self, ask: &Ask, _: &Digest) -> Answer<Option<u64>> {
        self.answer(ask, "blob", 1)
    }
    async fn tags(&self, ask: &Ask, _: Option<&Tag>, _: usize) -> Answer<Option<TagPage>> {
        self.answer(ask, "tags", TagPage::default())
    }
    async fn referrers(&self, _: &Ask, _: &Digest, _: Option<&str>) -> Answer<Option<Vec<Descriptor>>> {
        panic!("referrers say nothing of permission")
    }
    fn state(&self) -> State {
        panic!("nobody asks for the state here")
    }
}

/// docker.io without a credential, ghcr.io with one, quay.io with one that is shared; `denied/**` left out of ghcr.io.
struct Setup {
    access: Access,
    upstream: Arc<Scripted>,
}

fn setup(access: &config::Access) -> Setup {
    let defaults = config::Config::default();
    let mut upstreams = defaults.upstreams;
    for (host, visibility) in
        [("ghcr.io", Visibility::Verify), ("quay.io", Visibility::Shared), ("docker.io", Visibility::Verify)]
    {
        let mut upstream = config::Upstream::of(host).unwrap();
        upstream.credential =
            Some(Credential::Basic { username: "ci".into(), password: Secret::new("upstream-secret") });
        upstream.visibility = visibility;
        upstream.deny = vec!["denied/**".parse().unwrap()];
        upstreams.insert(host.to_owned(), Arc::new(upstream));
    }
    let settings = Settings {
        default_upstream: defaults.default_upstream,
        upstreams,
        hosted: defaults.hosted,
        freshness: defaults.freshness,
        own: OwnNames::default(),
    };
    let upstream = Arc::new(Scripted::default());
    let scripted = Arc::clone(&upstream);
    let build: Build = Box::new(move |_| Ok(Arc::<Scripted>::clone(&scripted)));
    let repositories = Arc::new(Repositories::new(&settings, build).unwrap());
    let clock = Clock::manual(crate::clock::Timestamp(1_000_000));
    let signing = Signing { key: [7; token::KEY_BYTES], clock };
    let access = Access::new(access, &config::Limits::default(), repositories, Arc::new(Metrics::new()), signing);
    Setup { access, upstream }
}

fn rule(who: Who, may: &[Action], repositories: &str) -> Rule {
    Rule { who, may: may.to_vec(), repositories: vec![repositories.parse().unwrap()], tags: Vec::new() }
}

fn users() -> Contents {
    let line = |user: &str| format!("{user}:{}\n", bcrypt::hash(format!("{user}-password"), 4).unwrap());
    Contents { path: "htpasswd".into(), bytes: (line("reader") + &line("writer")).into_bytes().into() }
}

/// Anybody may pull; `reader` ghcr.io/acme and all that is hosted, `writer` pushes to and deletes from the cache.
fn with_users() -> config::Access {
    let user = |name: &str| Who::User(name.parse().unwrap());
    config::Access {
        anonymous: vec![Pull],
        networks: [("runners".to_owned(), vec!["10.0.0.0/8".parse().unwrap()])].into(),
        htpasswd: Some(users()),
        rules: vec![
            rule(user("reader"), &[Pull], "ghcr.io/acme/**"),
            rule(user("writer"), &[Pull, Push, Delete], "cache/**"),
            rule(Who::Network("runners".into()), &[Pull], "ghcr.io/team/**"),
        ],
        ..config::Access::default()
    }
}

fn caller(who: &str) -> Caller {
    let basic = |user: &str, password: &str| {
        Some(Credentials::Basic { user: user.to_owned(), password: Secret::new(password) })
    };
    let credentials = match who {
        "anonymous" | "runner" => None,
        "bearer" => Some(Credentials::Bearer(Secret::new("hub-token-canary"))),
        "hub" => basic("hub-user", "hub-password-canary"),
        "wrong" => basic("reader", "wrong"),
        user => basic(user, &format!("{user}-password")),
    };
    let address = if who == "runner" { [10, 1, 2, 3] } else { [192, 0, 2, 7] };
    Caller { credentials, address: IpAddr::from(address), origin_header: false }
}

fn key(path: &str) -> RepositoryKey {
    RepositoryKey::from_path(path).unwrap()
}

fn tag() -> Target {
    Target::Manifest("latest".parse().unwrap())
}

impl Setup {
    async fn ask(&self, who: &str, action: Action, repository: &str) -> String {
        self.ask_as(&caller(who), action, repository, &tag()).await
    }

    async fn ask_as(&self, caller: &Caller, action: Action, repository: &str, target: &Target) -> String {
        match self.access.authorize(caller, action, &key(repository), target).await {
            Ok(grant) => {
                assert_eq!((grant.repository(), grant.action()), (&key(repository), action));
                grant.principal().to_string()
            }
            Err(refusal) => refusal.reason().to_owned(),
        }
    }

    async fn check(&self, rows: &[(&str, Action, &str, &str)]) {
        for (who, action, repository, want) in rows {
            assert_eq!(&self.ask(who, *action, repository).await, want, "{who} {action:?} {repository}");
        }
    }
}

/// Every kind of repository, and what each principal gets for pull, push and delete: granted, 401, 404 or 403.
const MATRIX: [(&str, [&str; 7]); 10] = [
    // anonymous, hub, wrong, bearer, runner, reader, writer
    ("docker.io/library/alpine", ["g11", "g11", "g11", "g11", "g11", "g33", "g33"]),
    ("mcr.microsoft.com/dotnet/sdk", ["g11", "g11", "g11", "g11", "g11", "g33", "g33"]),
    ("quay.io/acme/app", ["g11", "g11", "g11", "g11", "g11", "g33", "g33"]),
    ("ghcr.io/always-open/app", ["g11", "g11", "g11", "g11", "g11", "g33", "g33"]),
    ("ghcr.io/always-private/app", ["111", "111", "111", "111", "111", "444", "444"]),
    ("ghcr.io/denied/app", ["333", "333", "333", "333", "333", "333", "333"]),
    ("docker.io/always-private/team", ["111", "111", "111", "111", "g11", "g33", "444"]),
    ("_hosted/cache/app", ["g11", "g11", "g11", "g11", "g11", "g33", "ggg"]),
    ("_hosted/other", ["g11", "g11", "g11", "g11", "g11", "g33", "g33"]),
    ("evil.example/x", ["111", "111", "111", "111", "111", "444", "444"]),
];

#[tokio::test]
async fn the_matrix_of_principals_actions_and_repositories_is_exact() {
    let mut rules = with_users();
    rules.rules.push(rule(Who::Network("runners".into()), &[Pull], "docker.io/always-private/team"));
    rules.rules.push(rule(Who::User("reader".parse().unwrap()), &[Pull], "docker.io/always-private/**"));
    let setup = setup(&rules);
    let mut wrong = Vec::new();
    for (repository, cells) in MATRIX {
        let principals = ["anonymous", "hub", "wrong", "bearer", "runner", "reader", "writer"];
        for (who, want) in principals.into_iter().zip(cells) {
            let mut got = String::new();
            for action in [Pull, Push, Delete] {
                got.push_str(match setup.ask(who, action, repository).await.as_str() {
                    "unauthenticated" => "1",
                    "denied" => "3",
                    "hidden" => "4",
                    "unavailable" | "busy" => "5",
                    _ => "g",
                });
            }
            if got != want {
                wrong.push(format!("{who} on {repository}: {got}, not {want}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn every_principal_gets_what_the_rules_give() {
    let setup = setup(&with_users());
    setup
        .check(&[
            // Everybody's: official images, upstreams without a credential, shared ones, hosted ones by `anonymous`.
            ("anonymous", Pull, "docker.io/library/alpine", "anonymous"),
            ("anonymous", Pull, "mcr.microsoft.com/dotnet/sdk", "anonymous"),
            ("anonymous", Pull, "quay.io/acme/app", "anonymous"),
            ("anonymous", Pull, "_hosted/cache/app", "anonymous"),
            ("wrong", Pull, "docker.io/library/alpine", "anonymous"),
            ("hub", Pull, "docker.io/library/alpine", "anonymous"),
            ("bearer", Pull, "docker.io/library/alpine", "anonymous"),
            // By rule, whatever the upstream shows to others.
            ("reader", Pull, "ghcr.io/acme/app", "reader"),
            ("runner", Pull, "ghcr.io/team/app", "anonymous"),
            ("writer", Push, "_hosted/cache/app", "writer"),
            ("writer", Delete, "_hosted/cache/app", "writer"),
            // A credential could help.
            ("anonymous", Push, "_hosted/cache/app", "unauthenticated"),
            ("hub", Push, "_hosted/cache/app", "unauthenticated"),
            ("bearer", Push, "_hosted/cache/app", "unauthenticated"),
            ("wrong", Delete, "_hosted/cache/app", "unauthenticated"),
            ("runner", Push, "ghcr.io/team/app", "unauthenticated"),
            // May pull, not more.
            ("reader", Push, "_hosted/cache/app", "denied"),
            ("reader", Delete, "_hosted/cache/app", "denied"),
            ("reader", Push, "ghcr.io/acme/app", "denied"),
            ("writer", Push, "docker.io/library/alpine", "denied"),
            // Left out by the upstream's patterns, for whoever may pull at all.
            ("anonymous", Pull, "ghcr.io/denied/app", "denied"),
            ("reader", Pull, "ghcr.io/denied/app", "denied"),
            ("anonymous", Pull, "evil.example/x", "unauthenticated"),
            ("reader", Pull, "evil.example/x", "hidden"),
        ])
        .await;
    assert_eq!(setup.upstream.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_upstream_keeps_private_is_hidden() {
    let setup = setup(&with_users());
    for (who, want) in [
        ("anonymous", "unauthenticated"),
        ("hub", "unauthenticated"),
        ("runner", "unauthenticated"),
        ("writer", "hidden"),
        ("reader", "hidden"),
    ] {
        for action in [Pull, Push, Delete] {
            setup.upstream.say(&[Says::No]);
            let repository = format!("ghcr.io/private/{who}-{}", action.word());
            assert_eq!(setup.ask(who, action, &repository).await, want, "{who} {action:?}");
        }
    }
}

#[tokio::test]
async fn nothing_is_given_elsewhere_unless_said() {
    let setup = setup(&config::Access::default());
    for repository in ["docker.io/library/alpine", "ghcr.io/acme/app", "_hosted/cache/app", "evil.example/x"] {
        for action in [Pull, Push, Delete] {
            // No authentication is configured, so a challenge would lead nowhere.
            for who in ["anonymous", "hub", "bearer"] {
                assert_eq!(setup.ask(who, action, repository).await, "hidden", "{who} {action:?} {repository}");
            }
        }
    }
    assert!(setup.access.authenticate(&caller("hub")).await.is_ok());
}

#[tokio::test]
async fn on_loopback_anybody_pulls_pushes_and_deletes_but_no_web_page_writes() {
    let setup = setup(&config::Config::default().access);
    let page = Caller { origin_header: true, ..caller("anonymous") };
    for (action, page_gets) in [(Pull, "anonymous"), (Push, "denied"), (Delete, "denied")] {
        assert_eq!(setup.ask("anonymous", action, "_hosted/cache/app").await, "anonymous");
        assert_eq!(setup.ask("hub", action, "_hosted/cache/app").await, "anonymous");
        assert_eq!(setup.ask_as(&page, action, "_hosted/cache/app", &tag()).await, page_gets);
    }
}

#[tokio::test]
async fn what_the_upstream_shows_to_anybody_is_anybodys() {
    let setup = setup(&config::Config::default().access);
    let blob = Target::Blob(Digest::of(b"x"));
    setup.upstream.say(&[Says::Yes, Says::No, Says::Yes, Says::Absent, Says::Yes]);
    assert_eq!(setup.ask("anonymous", Pull, "ghcr.io/open/app").await, "anonymous");
    // The answer is about the repository: its blobs are not asked for again.
    assert_eq!(setup.ask_as(&caller("hub"), Pull, "ghcr.io/open/app", &blob).await, "anonymous");
    assert_eq!(setup.ask("anonymous", Pull, "ghcr.io/private/app").await, "hidden");
    assert_eq!(setup.ask_as(&caller("anonymous"), Pull, "ghcr.io/private/app", &blob).await, "hidden");
    assert_eq!(setup.ask_as(&caller("anonymous"), Pull, "docker.io/acme/app", &blob).await, "anonymous");
    // A tag that is not there says nothing of the repository; a list that anybody gets does.
    assert_eq!(setup.ask("anonymous", Pull, "ghcr.io/open/other").await, "anonymous");
    let asked = ["resolve open/app", "resolve private/app", "blob acme/app", "resolve open/other", "tags open/other"];
    assert_eq!(setup.upstream.asked(), asked);
}

#[tokio::test]
async fn asking_for_what_is_missing_hides_nothing_else() {
    let setup = setup(&config::Config::default().access);
    setup.upstream.say(&[Says::Absent, Says::Absent, Says::Yes]);
    let missing = Target::Manifest("missing".parse().unwrap());
    assert_eq!(setup.ask_as(&caller("anonymous"), Pull, "ghcr.io/open/app", &missing).await, "hidden");
    assert_eq!(setup.ask_as(&caller("anonymous"), Pull, "ghcr.io/open/app", &missing).await, "hidden");
    assert_eq!(setup.ask("anonymous", Pull, "ghcr.io/open/app").await, "anonymous");
    assert_eq!(setup.ask_as(&caller("anonymous"), Pull, "ghcr.io/open/app", &missing).await, "anonymous");
    assert_eq!(setup.upstream.asked().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_public_repository_stays_so_while_the_upstream_is_unavailable() {
    let setup = setup(&config::Config::default().access);
    let day = Duration::from_hours(24);
    setup.upstream.say(&[Says::Yes, Says::Nothing, Says::Nothing]);
    assert_eq!(setup.ask("anonymous", Pull, "ghcr.io/open/app").await, "anonymous");
    tokio::time::advance(day * 29).await;
    assert_eq!(setup.ask("anonymous", Pull, "ghcr.io/open/app").await, "anonymous");
    tokio::time::advance(day * 2).await;
    assert_eq!(setup.ask("anonymous", Pull, "ghcr.io/open/app").await, "unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_repository_that_was_made_private_is_so_after_a_day() {
    let setup = setup(&config::Config::default().access);
    setup.upstream.say(&[Says::Yes, Says::No, Says::Nothing]);
    assert_eq!(setup.ask("anonymous", Pull, "ghcr.io/open/app").await, "anonymous");
    tokio::time::advance(Duration::from_hours(25)).await;
    assert_eq!(setup.ask("anonymous", Pull, "ghcr.io/open/app").await, "hidden");
    tokio::time::advance(Duration::from_mins(1)).await;
    assert_eq!(setup.ask("anonymous", Pull, "ghcr.io/open/app").await, "unavailable");
}

#[tokio::test]
async fn a_check_that_cannot_be_made_is_neither_yes_nor_no() {
    let setup = setup(&with_users());
    setup.upstream.say(&[Says::Nothing, Says::Nothing, Says::Absent, Says::Nothing]);
    for who in ["anonymous", "writer", "hub"] {
        assert_eq!(setup.ask(who, Pull, "ghcr.io/open/app").await, "unavailable", "{who}");
    }
    // Whoever has a rule needs no check.
    assert_eq!(setup.ask("reader", Pull, "ghcr.io/acme/app").await, "reader");
}

#[tokio::test]
async fn many_who_want_to_know_ask_once() {
    let setup = setup(&config::Config::default().access);
    setup.upstream.say(&[Says::Yes]);
    let all = (0..50).map(|_| setup.ask("anonymous", Pull, "ghcr.io/open/app"));
    assert!(futures_util::future::join_all(all).await.iter().all(|who| who == "anonymous"));
    assert_eq!(setup.upstream.asked().len(), 1);
}

#[tokio::test]
async fn v2_asks_for_a_credential_only_where_users_are_configured() {
    let setup = setup(&with_users());
    for (who, want) in
        [("anonymous", None), ("hub", None), ("wrong", None), ("bearer", None), ("reader", Some("reader"))]
    {
        let got = setup.access.authenticate(&caller(who)).await;
        assert_eq!(got.ok().map(|principal| principal.to_string()).as_deref(), want, "{who}");
    }
    assert!(setup.access.authenticates());
}

#[tokio::test]
async fn a_reload_takes_rights_and_passwords_away() {
    let setup = setup(&with_users());
    assert_eq!(setup.ask("writer", Push, "_hosted/cache/app").await, "writer");
    let mut changed = with_users();
    changed.htpasswd = Some(Contents { path: "htpasswd".into(), bytes: Arc::from(&b""[..]) });
    setup.access.reload(&changed);
    assert_eq!(setup.ask("writer", Push, "_hosted/cache/app").await, "unauthenticated");
    setup.access.reload(&config::Access::default());
    assert_eq!(setup.ask("writer", Push, "_hosted/cache/app").await, "hidden");
}

#[tokio::test]
async fn no_password_is_printed() {
    let setup = setup(&with_users());
    setup.ask("hub", Push, "_hosted/cache/app").await;
    let shown = format!("{:?} {:?} {:?}", setup.access, caller("hub"), caller("bearer"));
    for secret in ["canary", "password\"", "$2", "upstream-secret"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
