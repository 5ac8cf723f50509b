use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::store::StoreOptions;

/// A folder, and runs over it that can begin again.
struct Bench {
    folder: tempfile::TempDir,
    clock: Clock,
    tasks: Tasks,
    store: Store,
    metrics: Arc<Metrics>,
    limits: config::Limits,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp(1_000_000));
        let (tasks, metrics) = (Tasks::new(), Arc::new(Metrics::new()));
        let mut store = Config::default().store;
        (store.path, store.reserve_free) = (folder.path().to_owned(), 0);
        let options = StoreOptions { store, lease: Duration::ZERO };
        let store = Store::open(options, clock.clone(), tasks.clone(), Arc::clone(&metrics)).await.unwrap();
        Self { folder, clock, tasks, store, metrics, limits: config::Limits::default() }
    }

    /// Runs with nothing in memory, as after a start.
    fn runs(&self) -> Runs {
        let (clock, tasks, metrics) = (self.clock.clone(), self.tasks.clone(), Arc::clone(&self.metrics));
        Runs::new(self.store.clone(), clock, tasks, metrics, config::Runs::default(), &self.limits)
    }

    fn records(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("state/runs")).map_or(0, Iterator::count)
    }

    fn metric(&self, name: &str) -> String {
        let text = self.metrics.encode();
        let line = text.lines().find(|line| line.starts_with(&format!("larder_{name} ")));
        line.and_then(|line| line.split(' ').next_back()).unwrap_or_default().to_owned()
    }
}

fn of(name: &str) -> RepositoryKey {
    RepositoryKey::from_path(&format!("docker.io/{name}")).unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn digest(n: u8) -> Digest {
    Digest::of(&[n])
}

#[tokio::test]
async fn what_came_first_is_what_the_run_sees_and_it_outlives_the_process() {
    let bench = Bench::new().await;
    let (runs, app, one) = (bench.runs(), of("app"), tag("1"));
    assert_eq!(runs.pinned("a", &app, &one).await.unwrap(), None);
    assert_eq!(runs.pin("a", &app, &one, digest(1)).await.unwrap(), digest(1));
    assert_eq!(runs.pin("a", &app, &one, digest(2)).await.unwrap(), digest(1));
    assert_eq!(runs.pin("b", &app, &one, digest(2)).await.unwrap(), digest(2));
    // With nothing of it in memory: what was answered is written down.
    let again = bench.runs();
    assert_eq!(again.pinned("a", &app, &one).await.unwrap(), Some(digest(1)));
    assert_eq!(again.pin("b", &app, &one, digest(3)).await.unwrap(), digest(2));
    assert_eq!(again.pinned("a", &of("other"), &one).await.unwrap(), None);
    assert_eq!(again.pinned("a", &app, &tag("2")).await.unwrap(), None);
    assert_eq!(again.list().await.unwrap().iter().map(|run| &*run.id).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_first_requests_at_once_one_decides() {
    let bench = Bench::new().await;
    let runs = bench.runs();
    let asked = (0..50).map(|n| {
        let runs = runs.clone();
        async move { runs.pin("a", &of("app"), &tag("1"), digest(n)).await.unwrap() }
    });
    let answers = futures_util::future::join_all(asked.map(|work| bench.tasks.spawn("test", work))).await;
    let answers: Vec<Digest> = answers.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(bench.runs().pinned("a", &of("app"), &tag("1")).await.unwrap(), Some(answers[0]));
    assert_eq!(
        (bench.metric("runs"), bench.metric("run_pins")),
        ("2".to_owned(), "2".to_owned()),
        "each in two memories"
    );
}

#[tokio::test]
async fn names_of_runs_need_not_be_names_of_files() {
    let bench = Bench::new().await;
    let long = "~A.b_".repeat(25);
    for id in ["..", "A", "a", "~", &long] {
        bench.runs().pin(id, &of("app"), &tag("1"), Digest::of(id.as_bytes())).await.unwrap();
    }
    for id in ["..", "A", "a", "~", &long] {
        let seen = bench.runs().pinned(id, &of("app"), &tag("1")).await.unwrap();
        assert_eq!(seen, Some(Digest::of(id.as_bytes())), "{id}");
    }
    assert_eq!(bench.records(), 5);
}

#[tokio::test]
async fn a_run_lives_from_its_last_use() {
    let bench = Bench::new().await;
    let (runs, app, one) = (bench.runs(), of("app"), tag("1"));
    runs.pin("a", &app, &one, digest(1)).await.unwrap();
    for _ in 0..3 {
        bench.clock.advance(Duration::from_hours(20));
        assert_eq!(runs.pinned("a", &app, &one).await.unwrap(), Some(digest(1)));
    }
    bench.clock.advance(Duration::from_hours(20));
    runs.touch("a");
    bench.clock.advance(Duration::from_hours(20));
    assert_eq!(runs.show("a").await.unwrap().unwrap().pins.len(), 1);
    // To look at it is no use of it.
    bench.clock.advance(Duration::from_hours(5));
    assert_eq!(runs.show("a").await.unwrap(), None);
    assert_eq!(runs.held(), None, "not known before the records were read");
    assert_eq!(runs.list().await.unwrap(), []);
    assert_eq!(runs.held(), Some(Vec::new()));
    assert_eq!(runs.pinned("a", &app, &one).await.unwrap(), None);
    assert_eq!(runs.pin("a", &app, &one, digest(2)).await.unwrap(), digest(2));
    assert_eq!(bench.runs().pinned("a", &app, &one).await.unwrap(), Some(digest(2)));
}

#[tokio::test]
async fn what_is_over_is_removed_and_last_uses_are_written_down() {
    let bench = Bench::new().await;
    let (runs, app, one) = (bench.runs(), of("app"), tag("1"));
    runs.pin("old", &app, &one, digest(1)).await.unwrap();
    runs.pin("used", &app, &one, digest(2)).await.unwrap();
    bench.clock.advance(Duration::from_hours(20));
    runs.touch("used");
    let touched = bench.clock.now();
    let keeper = bench.tasks.spawn("test", runs.clone().keep());
    bench.clock.advance(Duration::from_hours(10));
    // A new run wakes the keeper.
    runs.pin("new", &app, &one, digest(3)).await.unwrap();
    let gone = async {
        while bench.records() != 2 || bench.metric("runs") != "2" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
    assert_eq!(bench.metric("run_pins"), "2");
    // The keeper goes through the runs in any order.
    let written = async {
        while bench.runs().show("used").await.unwrap().is_none_or(|run| run.used < touched) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.unwrap();
    // Used 10 h ago, as the record knows: in another 10 h it is not over.
    bench.clock.advance(Duration::from_hours(10));
    assert_eq!(bench.runs().pinned("used", &app, &one).await.unwrap(), Some(digest(2)));
    runs.touch("used");
    bench.tasks.stop().await;
    keeper.await.unwrap();
    // A stop in order writes the last use.
    bench.clock.advance(Duration::from_hours(23));
    assert_eq!(bench.runs().pinned("used", &app, &one).await.unwrap(), Some(digest(2)));
}

#[tokio::test]
async fn there_is_room_for_so_many_runs_and_tags() {
    let mut bench = Bench::new().await;
    (bench.limits.runs, bench.limits.run_tags) = (2, 2);
    let (runs, app) = (bench.runs(), of("app"));
    for name in ["1", "2"] {
        runs.pin("a", &app, &tag(name), digest(1)).await.unwrap();
    }
    let refused = runs.pin("a", &app, &tag("3"), digest(1)).await;
    assert!(matches!(refused, Err(Error::Tags { limit: 2 })), "{refused:?}");
    // What it saw it goes on seeing.
    assert_eq!(runs.pin("a", &app, &tag("1"), digest(9)).await.unwrap(), digest(1));
    assert!(matches!(runs.admit("a", &app, &[&tag("3")]).await, Err(Error::Tags { .. })));
    runs.admit("a", &app, &[&tag("2")]).await.unwrap();
    runs.repin("a", &app, &tag("2"), digest(7)).await.unwrap();
    runs.pin("b", &app, &tag("1"), digest(2)).await.unwrap();
    let refused = runs.pin("c", &app, &tag("1"), digest(2)).await;
    assert!(matches!(refused, Err(Error::Runs { limit: 2 })), "{refused:?}");
    assert!(matches!(runs.admit("c", &app, &[&tag("1")]).await, Err(Error::Runs { .. })));
    assert!(runs.end("b").await.unwrap());
    runs.pin("c", &app, &tag("1"), digest(2)).await.unwrap();
    let text = bench.metrics.encode();
    for line in [r#"larder_runs_refused_total{reason="tags"} 2"#, r#"larder_runs_refused_total{reason="runs"} 2"#] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn a_manifest_that_is_deleted_is_held_by_no_run() {
    let bench = Bench::new().await;
    let (runs, app, other) = (bench.runs(), of("app"), of("other"));
    runs.pin("a", &app, &tag("1"), digest(1)).await.unwrap();
    runs.pin("a", &app, &tag("2"), digest(2)).await.unwrap();
    runs.pin("b", &other, &tag("1"), digest(1)).await.unwrap();
    // Also where nothing of it is in memory yet.
    let again = bench.runs();
    again.forget(&app, &digest(1)).await.unwrap();
    for runs in [again, bench.runs()] {
        assert_eq!(runs.pinned("a", &app, &tag("1")).await.unwrap(), None);
        assert_eq!(runs.pinned("a", &app, &tag("2")).await.unwrap(), Some(digest(2)));
        assert_eq!(runs.pinned("b", &other, &tag("1")).await.unwrap(), Some(digest(1)));
    }
}

#[tokio::test]
async fn what_was_used_last_is_held_first() {
    let bench = Bench::new().await;
    let runs = bench.runs();
    for (id, name, n) in [("a", "1", 1), ("b", "1", 2), ("a", "2", 3)] {
        runs.pin(id, &of("app"), &tag(name), digest(n)).await.unwrap();
        bench.clock.advance(Duration::from_secs(1));
    }
    runs.list().await.unwrap();
    let held: Vec<Digest> = runs.held().unwrap().into_iter().map(|(_, digest)| digest).collect();
    assert_eq!(held, [digest(3), digest(1), digest(2)]);
}

#[tokio::test]
async fn a_store_that_takes_no_writes_makes_no_run_blind() {
    let bench = Bench::new().await;
    let (runs, app, one) = (bench.runs(), of("app"), tag("1"));
    runs.pin("a", &app, &one, digest(1)).await.unwrap();
    runs.list().await.unwrap();
    // A file where the folder should be.
    let folder = bench.folder.path().join("state/runs");
    let aside = bench.folder.path().join("aside");
    std::fs::rename(&folder, &aside).unwrap();
    std::fs::write(&folder, "").unwrap();
    for name in ["2", "3"] {
        assert_eq!(runs.pin("a", &app, &tag(name), digest(2)).await.unwrap(), digest(2));
        assert_eq!(runs.pin("a", &app, &tag(name), digest(3)).await.unwrap(), digest(2));
    }
    assert_eq!(runs.pin("new", &app, &one, digest(4)).await.unwrap(), digest(4));
    assert_eq!(runs.pinned("new", &app, &one).await.unwrap(), Some(digest(4)));
    // When it takes writes again, what was kept in memory is written without a further request.
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    runs.0.woken.notify_one();
    let _keeper = bench.tasks.spawn("test", runs.clone().keep());
    let written = async {
        while bench.runs().pinned("a", &app, &tag("3")).await.unwrap() != Some(digest(2)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.unwrap();
    bench.tasks.stop().await;
}

#[tokio::test]
async fn a_damaged_record_is_no_run_that_saw_nothing_and_can_be_ended() {
    let bench = Bench::new().await;
    bench.runs().pin("a", &of("app"), &tag("1"), digest(1)).await.unwrap();
    bench.runs().pin("b", &of("app"), &tag("1"), digest(2)).await.unwrap();
    let path = bench.folder.path().join("state/runs").join(name("a"));
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replace("app", "apq")).unwrap();
    let runs = bench.runs();
    assert!(matches!(runs.pinned("a", &of("app"), &tag("1")).await, Err(Error::Store(_))));
    assert_eq!(runs.list().await.unwrap().len(), 1, "the others are there");
    assert!(bench.runs().end("a").await.unwrap());
    assert!(!path.exists());
    assert!(!bench.runs().end("a").await.unwrap());
}

/// What may be done with runs.
#[derive(Clone, Debug)]
enum Step {
    Pin(u8, u8, u8),
    Repin(u8, u8, u8),
    Forget(u8),
    End(u8),
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    let few = || 0_u8..3;
    prop_oneof![
        4 => (few(), few(), few()).prop_map(|(run, tag, digest)| Step::Pin(run, tag, digest)),
        2 => (few(), few(), few()).prop_map(|(run, tag, digest)| Step::Repin(run, tag, digest)),
        1 => few().prop_map(Step::Forget),
        1 => few().prop_map(Step::End),
        1 => Just(Step::Restart),
    ]
}

/// Runs the steps, and compares each answer with a map.
async fn follow(steps: Vec<Step>) {
    let bench = Bench::new().await;
    let (mut runs, app) = (bench.runs(), of("app"));
    let mut model: BTreeMap<(u8, u8), u8> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Pin(run, name, n) => {
                let want = *model.entry((run, name)).or_insert(n);
                let got = runs.pin(&run.to_string(), &app, &tag(&name.to_string()), digest(n)).await.unwrap();
                assert_eq!(got, digest(want));
            }
            Step::Repin(run, name, n) => {
                model.insert((run, name), n);
                runs.repin(&run.to_string(), &app, &tag(&name.to_string()), digest(n)).await.unwrap();
            }
            Step::Forget(n) => {
                model.retain(|_, kept| *kept != n);
                runs.forget(&app, &digest(n)).await.unwrap();
            }
            Step::End(run) => {
                model.retain(|(of, _), _| *of != run);
                runs.end(&run.to_string()).await.unwrap();
            }
            Step::Restart => runs = bench.runs(),
        }
    }
    for runs in [runs, bench.runs()] {
        for (run, name) in (0..3).flat_map(|run| (0..3).map(move |name| (run, name))) {
            let got = runs.pinned(&run.to_string(), &app, &tag(&name.to_string())).await.unwrap();
            assert_eq!(got, model.get(&(run, name)).copied().map(digest), "run {run}, tag {name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn runs_are_what_a_map_would_be_over_restarts(steps in proptest::collection::vec(any_step(), 1..20)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(follow(steps));
    }
}
