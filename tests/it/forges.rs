//! What is known of branches and pull requests: from forges of each kind, whole or not at all.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use larder::clock::Clock;
use larder::clock::Timestamp;
use larder::config::Config;
use larder::config::Secret;
use larder::config::forge::ForgeKind;
use larder::config::forge::ForgeLimits;
use larder::forge::Branches;
use larder::forge::Deps;
use larder::forge::Error;
use larder::forge::Event;
use larder::forge::Forges;
use larder::forge::Heard;
use larder::forge::What;
use larder::net::Trust;
use larder::store::Store;
use larder::store::StoreOptions;
use larder::tasks::Tasks;
use larder::telemetry::Metrics;

use crate::support::forge::Forge;
use crate::support::forge::KINDS;
use crate::support::forge::Kind;
use crate::support::forge::TOKEN;

/// 2026-09-21T13:33:20Z.
const START: Timestamp = Timestamp(1_790_000_000_000);

struct Asker {
    forges: Forges,
    clock: Clock,
    store: Store,
    tasks: Tasks,
    folder: tempfile::TempDir,
}

/// Lets what a forge says of `acme/app` be known in a folder, as an earlier process that had asked would.
pub async fn ask_once(forge: &Forge, kind: Kind, folder: &Path) {
    let (clock, tasks) = (Clock::manual(START), Tasks::new());
    let store = store(folder, &clock, &tasks).await;
    let forges = forges(forge, kind, &store, &clock, ForgeLimits::default());
    forges.branches("hub", "acme/app").await.unwrap();
    store.close().await.unwrap();
    tasks.stop().await;
    drop((forges, store));
    tokio::task::spawn_blocking(move || tasks.join_threads()).await.unwrap();
}

async fn store(folder: &Path, clock: &Clock, tasks: &Tasks) -> Store {
    let mut store = Config::default().store;
    store.path = folder.join("data");
    let options = StoreOptions { store, lease: Duration::ZERO };
    Store::open(options, clock.clone(), tasks.clone(), Arc::new(Metrics::new())).await.unwrap()
}

fn forges(forge: &Forge, kind: Kind, store: &Store, clock: &Clock, limits: ForgeLimits) -> Forges {
    let kind = match kind {
        Kind::Github => ForgeKind::Github,
        Kind::Gitlab => ForgeKind::Gitlab,
        Kind::Gitea => ForgeKind::Gitea,
    };
    let settings = larder::config::Forge {
        kind,
        api: forge.api().parse().unwrap(),
        token: Some(Secret::new(TOKEN)),
        webhook_secret: None,
        ca_file: None,
        proxy: None,
        limits,
    };
    let config = BTreeMap::from([("hub".to_owned(), Arc::new(settings))]);
    let (store, clock, metrics) = (store.clone(), clock.clone(), Arc::new(Metrics::new()));
    Forges::new(&config, Deps { store, clock, metrics, trust: Trust::nobody() }).unwrap()
}

impl Asker {
    async fn of(forge: &Forge, kind: Kind) -> Self {
        Self::bounded(forge, kind, ForgeLimits::default()).await
    }

    async fn bounded(forge: &Forge, kind: Kind, limits: ForgeLimits) -> Self {
        let (folder, clock, tasks) = (tempfile::tempdir().unwrap(), Clock::manual(START), Tasks::new());
        let store = store(folder.path(), &clock, &tasks).await;
        Self { forges: forges(forge, kind, &store, &clock, limits), clock, store, tasks, folder }
    }

    /// The same folder in a new process.
    async fn restarted(self, forge: &Forge, kind: Kind) -> Self {
        let Self { forges: old, clock, store: open, tasks, folder } = self;
        open.close().await.unwrap();
        tasks.stop().await;
        drop((old, open));
        tokio::task::spawn_blocking(move || tasks.join_threads()).await.unwrap();
        let tasks = Tasks::new();
        let store = store(folder.path(), &clock, &tasks).await;
        Self { forges: forges(forge, kind, &store, &clock, ForgeLimits::default()), clock, store, tasks, folder }
    }

    async fn branches(&self) -> Result<Arc<Branches>, Error> {
        self.forges.branches("hub", "acme/app").await
    }

    async fn alive(&self) -> Vec<String> {
        self.branches().await.unwrap().alive.iter().cloned().collect()
    }

    /// Later than a listing is good for.
    fn later(&self) {
        self.clock.advance(Duration::from_mins(2));
    }

    async fn hear(&self, what: What) -> Heard {
        self.forges.hear("hub", Event { repository: "Acme/App".to_owned(), what }).await.unwrap()
    }
}

fn deleted(branch: &str) -> What {
    What::Deleted { branch: branch.to_owned() }
}

fn pushed(branch: &str) -> What {
    What::Pushed { branch: branch.to_owned(), sha: Some("0123".to_owned()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_branch_is_listed_over_all_pages() {
    for kind in KINDS {
        let forge = Forge::start(kind).await;
        forge.put("acme/app", &["a", "b/c", "d", "main", "z"]);
        let asker = Asker::of(&forge, kind).await;
        assert_eq!(asker.alive().await, ["a", "b/c", "d", "main", "z"], "{kind:?}");
        assert_eq!(forge.asked().len(), 6, "three pages, and once more in case one moved");
        assert_eq!(asker.alive().await.len(), 5);
        assert_eq!(forge.asked().len(), 6, "a listing is good for a minute");
        asker.later();
        assert_eq!(asker.alive().await.len(), 5);
        assert_eq!(forge.asked().len(), 12);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_fails_on_page_two_is_an_error_and_says_nothing() {
    let html = "<html>maintenance</html>".to_owned();
    let elsewhere = vec![("location", "http://127.0.0.2:1/".to_owned())];
    for kind in KINDS {
        for (status, headers, body) in [
            (500, vec![], html.clone()),
            (200, vec![], html.clone()),
            (200, vec![], r#"[{"nome":"x"}]"#.to_owned()),
            (200, vec![], r#"{"message":"moved"}"#.to_owned()),
            (404, vec![], "{}".to_owned()),
            (401, vec![], "{}".to_owned()),
            (302, elsewhere.clone(), String::new()),
            (204, vec![], String::new()),
        ] {
            let forge = Forge::start(kind).await;
            forge.put("acme/app", &["a", "b", "c", "d", "e"]);
            let asker = Asker::of(&forge, kind).await;
            asker.alive().await;
            asker.later();
            forge.script(move |seen, _| (seen.page() == 2).then(|| (status, headers.clone(), body.clone())));
            let error = asker.branches().await.expect_err("the listing is not whole");
            assert!(!format!("{error} {error:?}").contains(TOKEN));
            forge.unscript();
            let known = asker.branches().await.unwrap();
            assert_eq!((known.alive.len(), known.dead.len()), (5, 0), "{kind:?} {status}: nothing was taken from it");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_fewer_than_the_forge_counts_is_an_error() {
    let forge = Forge::start(Kind::Gitea).await;
    forge.put("acme/app", &["a", "b", "c"]);
    forge.script(|seen, _| (seen.page() == 2).then(|| (200, vec![("x-total-count", "3".to_owned())], "[]".to_owned())));
    let error = Asker::of(&forge, Kind::Gitea).await.branches().await.unwrap_err();
    assert!(error.to_string().contains("lists 2 of 3"), "{error}");
    let forge = Forge::start(Kind::Github).await;
    forge.put("acme/app", &["a", "b", "c"]);
    let limits = ForgeLimits { pages: 1, ..ForgeLimits::default() };
    let error = Asker::bounded(&forge, Kind::Github, limits).await.branches().await.unwrap_err();
    assert!(error.to_string().contains("raise forges.hub.limits.pages"), "{error}");
    forge.put("acme/app", &[]);
    let error = Asker::of(&forge, Kind::Github).await.branches().await.unwrap_err();
    assert!(error.to_string().contains("nothing is decided"), "{error}");
    let error = Asker::of(&forge, Kind::Github).await.forges.branches("hub", "acme/none").await.unwrap_err();
    assert!(matches!(error, Error::Missing { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_slips_to_the_page_before_is_not_lost() {
    let forge = Forge::start(Kind::Github).await;
    forge.put("acme/app", &["a", "b", "c", "d"]);
    let asker = Asker::of(&forge, Kind::Github).await;
    // `a` is deleted after the first page: `c` comes to stand on it, and the second page begins with `d`.
    forge.script(|seen, repositories| {
        if seen.page() == 2 {
            repositories.get_mut("acme/app").unwrap().branches.retain(|name| name != "a");
        }
        None
    });
    assert_eq!(asker.alive().await, ["a", "b", "c", "d"], "what is unsure is there");
    asker.later();
    assert_eq!(asker.alive().await, ["b", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forge_that_is_asked_too_much_is_left_alone() {
    let now = START.0 / 1_000;
    for (kind, status, headers) in [
        (
            Kind::Github,
            403,
            vec![("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", (now + 1800).to_string())],
        ),
        (Kind::Github, 403, vec![("retry-after", "1800".to_owned())]),
        (Kind::Gitlab, 429, vec![("retry-after", "1800".to_owned())]),
        (Kind::Gitea, 429, vec![("ratelimit-reset", (now + 1800).to_string())]),
    ] {
        let forge = Forge::start(kind).await;
        forge.put("acme/app", &["main"]);
        let asker = Asker::of(&forge, kind).await;
        let limited = headers.clone();
        forge.script(move |_, _| Some((status, limited.clone(), "{}".to_owned())));
        for _ in 0..3 {
            let error = asker.branches().await.unwrap_err();
            let Error::RateLimited { wait, .. } = error else { panic!("{error}") };
            assert!(wait > Duration::from_secs(1700) && wait <= Duration::from_secs(1800), "{wait:?}");
        }
        assert_eq!(forge.asked().len(), 1, "it is not asked again before its time");
    }
    // A short wait is waited for.
    let forge = Forge::start(Kind::Gitlab).await;
    forge.put("acme/app", &["main"]);
    let left = AtomicUsize::new(2);
    forge.script(move |_, _| {
        let limited = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        limited.then(|| (429, vec![("retry-after", "0".to_owned())], String::new()))
    });
    assert_eq!(Asker::of(&forge, Kind::Gitlab).await.alive().await, ["main"]);
    assert_eq!(forge.asked().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn since_when_a_branch_is_gone_survives_a_restart() {
    let forge = Forge::start(Kind::Gitlab).await;
    forge.put("acme/app", &["a", "main"]);
    let mut asker = Asker::of(&forge, Kind::Gitlab).await;
    asker.alive().await;
    asker.later();
    forge.put("acme/app", &["main"]);
    assert_eq!(asker.alive().await, ["main"]);
    let gone = asker.clock.now();
    asker.later();
    asker = asker.restarted(&forge, Kind::Gitlab).await;
    let known = asker.branches().await.unwrap();
    assert_eq!(known.dead.iter().collect::<Vec<_>>(), [(&"a".to_owned(), &gone)]);
    assert_eq!(known.first_listed, START);
    assert_eq!(known.listed, asker.clock.now(), "it was asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_a_hint_that_a_listing_confirms() {
    let forge = Forge::start(Kind::Github).await;
    forge.put("acme/app", &["a", "b", "main"]);
    let asker = Asker::of(&forge, Kind::Github).await;
    assert_eq!(asker.hear(deleted("a")).await, Heard::Nothing, "nobody asked for the repository yet");
    assert_eq!(asker.hear(pushed("new")).await, Heard::Nothing);
    asker.alive().await;
    let told = asker.clock.now();
    assert_eq!(asker.hear(deleted("a")).await, Heard::News);
    assert_eq!(asker.hear(deleted("never")).await, Heard::Nothing);
    // The forge still has it: the event was late, or made up.
    assert_eq!(asker.alive().await, ["a", "b", "main"], "it is asked at once");
    asker.hear(deleted("a")).await;
    asker.clock.advance(Duration::from_secs(30));
    forge.put("acme/app", &["b", "main"]);
    assert_eq!(asker.branches().await.unwrap().dead.get("a"), Some(&told), "gone since the event");
    assert_eq!(asker.hear(pushed("a")).await, Heard::News);
    forge.forget();
    let known = asker.branches().await.unwrap();
    assert!(known.alive.contains("a") && known.dead.is_empty(), "a push came since");
    assert!(forge.asked().is_empty(), "a push alone asks nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_while_a_listing_runs_is_there() {
    let forge = Forge::start(Kind::Github).await;
    forge.put("acme/app", &["a", "b", "main"]);
    let asker = Arc::new(Asker::of(&forge, Kind::Github).await);
    asker.alive().await;
    asker.later();
    let (told, forges) = (AtomicUsize::new(0), asker.forges.clone());
    let runtime = tokio::runtime::Handle::current();
    forge.script(move |_, _| {
        if told.fetch_add(1, Ordering::SeqCst) == 0 {
            let event = Event { repository: "acme/app".to_owned(), what: pushed("new") };
            let heard = tokio::task::block_in_place(|| runtime.block_on(forges.hear("hub", event)));
            assert_eq!(heard.unwrap(), Heard::News);
        }
        None
    });
    assert_eq!(asker.alive().await, ["a", "b", "main", "new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_requests_are_open_or_were_closed_at_a_time() {
    for kind in KINDS {
        let forge = Forge::start(kind).await;
        forge.put_pulls(
            "acme/app",
            &[
                (1, "open", "2025-01-01T00:00:00Z"),
                (2, "open", "2026-09-20T00:00:00Z"),
                (3, "open", "2026-09-20T00:00:00Z"),
                (4, "closed", "2026-09-19T00:00:00Z"),
                (5, "merged", "2026-09-18T00:00:00Z"),
                (6, "merged", "2026-09-17T00:00:00Z"),
                (7, "closed", "2025-01-01T00:00:00Z"),
            ],
        );
        let asker = Asker::of(&forge, kind).await;
        let pulls = asker.forges.pulls("hub", "acme/app").await.unwrap();
        let open: Vec<u64> = pulls.open.iter().map(|pull| pull.number).collect();
        assert_eq!(open, [1, 2, 3], "{kind:?}: an old one that is open is open");
        let closed: Vec<(u64, String)> = pulls.closed.iter().map(|(pull, at)| (pull.number, at.to_string())).collect();
        let at = |day| format!("2026-09-{day}T00:00:00Z");
        assert_eq!(closed, [(4, at(19)), (5, at(18)), (6, at(17))], "{kind:?}");
        let first = &pulls.open[0];
        assert_eq!((first.branch.as_str(), first.sha.as_str()), ("feature/1", "0123"));
        let event = Event { repository: "acme/app".to_owned(), what: What::PullClosed(first.clone()) };
        assert_eq!(asker.forges.hear("hub", event).await.unwrap(), Heard::News);
        let pulls = asker.forges.pulls("hub", "acme/app").await.unwrap();
        assert_eq!(pulls.open.len(), 3, "{kind:?}: the forge says otherwise");
        // What was closed before the last listing need not be listed again.
        forge.put_pulls("acme/app", &[(1, "closed", "2026-09-21T13:33:20Z"), (2, "open", "2026-09-20T00:00:00Z")]);
        asker.later();
        forge.forget();
        let pulls = asker.forges.pulls("hub", "acme/app").await.unwrap();
        let closed: Vec<u64> = pulls.closed.iter().map(|(pull, _)| pull.number).collect();
        assert_eq!(closed, [1, 3, 4, 5, 6], "{kind:?}: 3 is missed, the others are remembered");
        assert_eq!(forge.asked().len(), 2, "{kind:?}: a page of those that are open, a page of those that were closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_tells_branches_and_remembers_those_that_it_named() {
    let forge = Forge::start(Kind::Github).await;
    let asker = Asker::of(&forge, Kind::Github).await;
    let file = asker.folder.path().join("branches.txt");
    let ask = async || asker.forges.branches_of_file(&file).await;
    assert!(matches!(ask().await, Err(Error::File { .. })));
    std::fs::write(&file, "\n").unwrap();
    assert!(matches!(ask().await, Err(Error::Empty { .. })), "an empty one is a failure, not a forge without branches");
    std::fs::write(&file, "main\n  refs/heads/a/b \r\n").unwrap();
    assert_eq!(ask().await.unwrap().alive.iter().collect::<Vec<_>>(), ["a/b", "main"]);
    asker.later();
    std::fs::write(&file, "main\n").unwrap();
    let known = ask().await.unwrap();
    assert_eq!(known.dead.iter().collect::<Vec<_>>(), [(&"a/b".to_owned(), &asker.clock.now())]);
}
