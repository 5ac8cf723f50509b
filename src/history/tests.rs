//! The history over a store in a folder.

use crate::config;
use crate::store::StoreOptions;
use crate::tasks::Tasks;

use super::*;

const START: Timestamp = Timestamp(1_790_000_000_000);
const DAY: Duration = Duration::from_hours(24);

/// A history in a folder, which outlives it.
struct Opened {
    history: History,
    clock: Clock,
    metrics: Arc<Metrics>,
    tasks: Tasks,
}

async fn open(folder: &Path, at: Timestamp, settings: &config::History) -> Opened {
    let (clock, tasks, metrics) = (Clock::manual(at), Tasks::new(), Arc::new(Metrics::new()));
    let store = config::Store { path: folder.to_owned(), ..config::Config::default().store };
    let options = StoreOptions { store, lease: Duration::ZERO };
    let store = Store::open(options, clock.clone(), tasks.clone(), Arc::clone(&metrics)).await.unwrap();
    let history = History::open(store, folder, clock.clone(), Arc::clone(&metrics), settings.clone()).await;
    Opened { history, clock, metrics, tasks }
}

impl Opened {
    /// As a process ends in order, or is killed.
    async fn end(self, in_order: bool) {
        if in_order {
            self.history.close().await;
        }
        self.tasks.stop().await;
        drop(self.history);
        tokio::task::spawn_blocking(move || self.tasks.join_threads()).await.unwrap();
    }

    fn pull(&self, n: u8) {
        self.history.note(&of(), Some(&tag()), &Digest::of(&[n]), Use::Pulled { from_here: true }, self.clock.now());
    }

    async fn digests(&self) -> Vec<Digest> {
        self.history.read(Timestamp(0)).await.map(|pull| pull.unwrap().digest).collect()
    }
}

fn of() -> RepositoryKey {
    RepositoryKey::from_path("docker.io/library/alpine").unwrap()
}

fn tag() -> Tag {
    "3".parse().unwrap()
}

#[tokio::test]
async fn pulls_are_known_over_restarts_and_an_end_without_a_close_begins_a_new_time() {
    let folder = tempfile::tempdir().unwrap();
    let settings = config::History::default();
    let first = open(folder.path(), START, &settings).await;
    assert_eq!(first.history.covered_since(), Some(START));
    first.pull(1);
    assert_eq!(first.digests().await, [Digest::of(&[1])]);
    first.end(true).await;

    let second = open(folder.path(), START.after(DAY), &settings).await;
    assert_eq!(second.history.covered_since(), Some(START));
    let last = second.history.last_pulls(|_| true).await;
    assert_eq!(last.of_tag(&of(), &tag()), Some(START));
    assert_eq!(last.of_digest(&of(), &Digest::of(&[1])), Some(START));
    assert_eq!((last.of_digest(&of(), &Digest::of(&[2])), last.covered_since()), (None, Some(START)));
    assert_eq!(second.history.last_pulls(|_| false).await.of_tag(&of(), &tag()), None);
    second.pull(2);
    // What this one noted is gone with it.
    second.end(false).await;

    let third = open(folder.path(), START.after(2 * DAY), &settings).await;
    assert_eq!(third.history.covered_since(), Some(START.after(2 * DAY)));
    assert_eq!(third.digests().await, [Digest::of(&[1])]);
    third.end(true).await;
}

#[tokio::test]
async fn what_finds_no_room_makes_what_is_known_begin_anew() {
    let folder = tempfile::tempdir().unwrap();
    let settings = config::History { queue: 1, ..config::History::default() };
    let opened = open(folder.path(), START, &settings).await;
    for n in 0..200 {
        opened.pull(n);
    }
    opened.clock.advance(DAY);
    let kept = opened.digests().await.len() as u64;
    assert_eq!(opened.history.covered_since(), Some(START.after(DAY)));
    let dropped = format!("larder_history_dropped_total {}", 200 - kept);
    assert!(opened.metrics.encode().lines().any(|line| line == dropped), "{dropped}");
    opened.end(true).await;
}

#[tokio::test]
async fn the_oldest_go_and_what_is_known_begins_behind_them() {
    let folder = tempfile::tempdir().unwrap();
    let settings = config::History { keep: 3 * DAY, ..config::History::default() };
    let opened = open(folder.path(), START, &settings).await;
    for n in 0..6 {
        opened.pull(n);
        opened.history.flush().await;
        opened.clock.advance(DAY);
    }
    assert_eq!(opened.digests().await, [3, 4, 5].map(|n| Digest::of(&[n])));
    assert_eq!(opened.history.covered_since(), Some(START.after(3 * DAY)));
    // By a clock that was set nothing is old.
    opened.clock.jump(400 * DAY);
    opened.pull(6);
    assert_eq!(opened.digests().await, [3, 4, 5, 6].map(|n| Digest::of(&[n])));
    assert_eq!(opened.history.covered_since(), Some(START.after(3 * DAY)));
    opened.end(true).await;
}

#[tokio::test]
async fn history_that_was_taken_away_or_damaged_is_not_taken_for_known() {
    let folder = tempfile::tempdir().unwrap();
    let settings = config::History::default();
    let first = open(folder.path(), START, &settings).await;
    for n in 0..3 {
        first.pull(n);
        first.history.flush().await;
        first.clock.advance(DAY);
    }
    let segments = first.history.0.segments();
    let middle = &segments[1].path;
    let mut bytes = std::fs::read(middle).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(middle, bytes).unwrap();
    let last = first.history.last_pulls(|_| true).await;
    assert_eq!(last.covered_since(), Some(START.after(2 * DAY)), "the day after the one that is damaged");
    assert_eq!(last.of_digest(&of(), &Digest::of(&[0])), Some(START));
    first.end(true).await;
    std::fs::remove_file(&segments.last().unwrap().path).unwrap();
    let again = open(folder.path(), START.after(9 * DAY), &settings).await;
    assert_eq!(again.history.covered_since(), Some(START.after(9 * DAY)));
    again.end(true).await;
}
