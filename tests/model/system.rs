//! The store and the collector, driven a step at a time, beside the model.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest_state_machine::ReferenceStateMachine;
use proptest_state_machine::StateMachineTest;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use larder::clock::Clock;
use larder::clock::Timestamp;
use larder::config;
use larder::config::Config;
use larder::config::store::Durability;
use larder::oci::Digest;
use larder::retention::gc;
use larder::retention::gc::Cycle;
use larder::retention::gc::Gc;
use larder::store;
use larder::store::Completeness;
use larder::store::Condition;
use larder::store::Drop;
use larder::store::Origin;
use larder::store::Put;
use larder::store::Removal;
use larder::store::Store;
use larder::store::StoreOptions;
use larder::tasks::Tasks;
use larder::telemetry::Metrics;
use larder::views::Fallbacks;
use larder::views::Runs;
use larder::views::Views;

use crate::model::Model;
use crate::steps::Reference;
use crate::steps::Step;
use crate::universe::REPOSITORIES;
use crate::universe::RUNS;
use crate::universe::UNIVERSE;
use crate::universe::hosted;
use crate::universe::proxied;
use crate::universe::tag;

const KEEP: Duration = Duration::from_hours(48);
const HOUR: Duration = Duration::from_hours(1);

/// What is driven.
pub(crate) struct Collector {
    runtime: Runtime,
    folder: tempfile::TempDir,
    clock: Clock,
    lease: Duration,
    running: Option<Running>,
    model: Model,
}

/// One process.
struct Running {
    store: Store,
    tasks: Tasks,
    gc: Gc,
    runs: Runs,
    cycle: Option<Cycle>,
}

impl Collector {
    fn new(lease: Duration) -> Self {
        // Where there is a file system in memory the disk is spared; what survives a power cut is not the question here.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let clock = Clock::manual(Timestamp(1_000_000));
        let mut new = Self { runtime, folder, clock, lease, running: None, model: Model::default() };
        new.start();
        new
    }

    fn start(&mut self) {
        let (clock, tasks, metrics) = (self.clock.clone(), Tasks::new(), Arc::new(Metrics::new()));
        let mut config = Config::default();
        self.folder.path().clone_into(&mut config.store.path);
        config.store.reserve_free = 0;
        config.store.durability = Durability::Relaxed;
        config.runs.keep = 1_000_000 * HOUR;
        let options = StoreOptions { store: config.store.clone(), lease: self.lease };
        self.running = Some(self.runtime.block_on(async {
            let store = Store::open(options, clock.clone(), tasks.clone(), Arc::clone(&metrics)).await.unwrap();
            let (work, counted) = (tasks.clone(), Arc::clone(&metrics));
            let runs = Runs::new(store.clone(), clock.clone(), work, counted, config.runs.clone(), &config.limits);
            runs.list().await.unwrap();
            let views = Views { fallbacks: Fallbacks::new(store.clone(), Vec::new()), runs: runs.clone() };
            let named = config::Hosted::named("cache/**".parse().unwrap());
            let hosted = vec![config::Hosted { untagged_keep: KEEP, ..named }];
            let settings = gc::Settings { every: Duration::ZERO, hosted, caches: Vec::new() };
            let gc = Gc::new(store.clone(), views, clock, tasks.clone(), metrics, settings);
            Running { store, tasks, gc, runs, cycle: None }
        }));
    }

    fn stop(&mut self) {
        let Some(Running { store, tasks, gc, runs, cycle }) = self.running.take() else { return };
        self.runtime.block_on(async {
            tasks.stop().await;
            store.close().await.unwrap();
        });
        drop((store, gc, runs, cycle));
        tasks.join_threads();
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// The process ends and starts again.
    fn restart(&mut self, loses_index: bool) {
        self.stop();
        if loses_index {
            std::fs::remove_file(self.folder.path().join("index.redb")).unwrap();
        }
        self.start();
        if loses_index {
            // Whatever is not known yet, nothing goes on the strength of it.
            self.collect();
        }
        let mut completeness = self.running().store.completeness();
        self.runtime.block_on(async {
            completeness.wait_for(|now| *now == Completeness::Complete).await.unwrap();
        });
    }

    fn collect(&mut self) {
        let mut cycle = self.running.as_mut().unwrap().cycle.take().unwrap_or_else(|| self.running().gc.cycle(None));
        match self.runtime.block_on(cycle.step()) {
            Ok(true) => self.running.as_mut().unwrap().cycle = Some(cycle),
            Ok(false) | Err(gc::Error::Store(store::Error::Incomplete)) => {}
            Err(error) => panic!("{error:?}"),
        }
        // Time passes within a step too: only what protects after it has protected all the while.
        let ended = self.runtime.block_on(async { Instant::now() });
        let now = self.clock.now();
        let gone: Vec<_> = self.model.present.difference(&self.present()).copied().collect();
        for place in &gone {
            let keeper = self.model.keeper(place, ended, now, KEEP);
            assert_eq!(keeper, None, "{place:?} was collected");
        }
        for place in &gone {
            self.model.gone(place);
        }
    }

    /// What is there, with the right bytes.
    fn present(&self) -> BTreeSet<(usize, Digest)> {
        let store = &self.running().store;
        self.runtime.block_on(async {
            let mut present = BTreeSet::new();
            for at in 0..REPOSITORIES {
                let of = hosted(at);
                for digest in UNIVERSE.all() {
                    if let Some(held) = store.held(&of, &digest).await.unwrap() {
                        assert_eq!(held.link.digest, digest);
                        present.insert((at, digest));
                    }
                }
            }
            present
        })
    }

    fn leased(&mut self, at: usize, digest: Digest) {
        let until = self.runtime.block_on(async { Instant::now() }) + self.lease;
        self.model.leases.insert((at, digest), until);
    }

    fn upload(&mut self, at: usize, blob: usize) {
        let text = &UNIVERSE.blobs[blob];
        let (store, digest) = (&self.running().store, Digest::of(text.as_bytes()));
        self.runtime.block_on(async {
            let bytes = store.spool().stage(Bytes::copy_from_slice(text.as_bytes()), digest).await.unwrap();
            store.commit(&hosted(at), Origin::Pushed, vec![Put::Blob(bytes)]).await.unwrap();
        });
        self.leased(at, digest);
    }

    fn mount(&mut self, to: usize, blob: usize) {
        let (store, digest) = (&self.running().store, Digest::of(UNIVERSE.blobs[blob].as_bytes()));
        let linked = self.runtime.block_on(async {
            store.held(&hosted(1 - to), &digest).await.unwrap()?;
            store.commit(&hosted(to), Origin::Pushed, vec![Put::Link { digest }]).await.ok()
        });
        if linked.is_some() {
            self.leased(to, digest);
        }
    }

    fn head(&mut self, at: usize, thing: usize) {
        let digest = UNIVERSE.all().nth(thing).unwrap();
        let store = &self.running().store;
        let told = self.runtime.block_on(async {
            store.lease(&digest).await.unwrap() && store.held(&hosted(at), &digest).await.unwrap().is_some()
        });
        if told {
            self.leased(at, digest);
        }
    }

    /// Whether it was taken: only where all is there that it names.
    fn put(&mut self, at: usize, manifest: usize, tags: Option<usize>) {
        let known = &UNIVERSE.manifests[manifest];
        let (digest, of) = (known.digest, hosted(at));
        let linked = known.blobs.iter().map(|blob| Condition::Linked(*blob));
        let conditions: Vec<_> =
            linked.chain(known.children.iter().map(|child| Condition::HasManifest(*child))).collect();
        let mut puts = vec![Put::Manifest { manifest: known.manifest.clone(), digest }];
        let (media_type, size) = (known.manifest.media_type.clone(), known.manifest.size());
        puts.extend(tags.map(|at| Put::Tag { tag: tag(at), digest, media_type, size, pusher: None }));
        let taken = self.runtime.block_on(self.running().store.commit_if(&of, puts, conditions));
        let whole = known.blobs.iter().chain(&known.children).all(|named| self.model.present.contains(&(at, *named)));
        assert_eq!(taken.is_ok(), whole, "{taken:?}");
        if whole {
            self.model.put(at, digest, tags, self.clock.now());
            self.leased(at, digest);
        }
    }

    fn put_whole(&mut self, at: usize, manifest: usize, tag: Option<usize>) {
        let known = &UNIVERSE.manifests[manifest];
        for blob in 0..UNIVERSE.blobs.len() {
            if known.blobs.contains(&Digest::of(UNIVERSE.blobs[blob].as_bytes())) {
                self.upload(at, blob);
            }
        }
        for child in 0..UNIVERSE.manifests.len() {
            if known.children.contains(&UNIVERSE.manifests[child].digest) {
                self.put_whole(at, child, None);
            }
        }
        self.model.present = self.present();
        self.put(at, manifest, tag);
        self.model.present = self.present();
    }

    fn remove(&self, at: usize, removal: Removal) -> store::Result<bool> {
        self.runtime.block_on(self.running().store.remove(&hosted(at), removal, Arc::new(|_| false)))
    }

    fn untag(&mut self, at: usize, number: usize, meaning: Option<Digest>) {
        let removal = match meaning {
            Some(digest) => Removal::TagMeaning(tag(number), digest),
            None => Removal::Tag(tag(number)),
        };
        let means = self.model.tags.get(&(at, number)).copied();
        let goes = means.is_some() && meaning.is_none_or(|meaning| means == Some(meaning));
        assert_eq!(self.remove(at, removal).unwrap(), goes);
        if goes {
            self.model.untag(at, number);
        }
    }

    fn delete(&mut self, at: usize, digest: Digest, removal: Removal) {
        let place = (at, digest);
        let names = |known: &&crate::universe::Known| {
            self.model.present.contains(&(at, known.digest))
                && (known.children.contains(&digest) || known.blobs.contains(&digest))
        };
        let named = UNIVERSE.manifests.iter().any(|known| names(&known));
        let tagged = matches!(removal, Removal::Untagged(_)) && self.model.is_tagged(at, &digest);
        let there = self.model.present.contains(&place);
        match self.remove(at, removal) {
            Ok(gone) => {
                assert_eq!(gone, there && !named && !tagged);
                if gone {
                    self.model.gone(&place);
                    self.model.runs.retain(|(_, of, _), means| !(*of == at && *means == digest));
                    self.runtime.block_on(self.running().runs.forget(&hosted(at), &digest)).unwrap();
                }
            }
            Err(store::Error::Named { .. }) => assert!(there && named),
            Err(store::Error::Tagged { .. }) => assert!(there && tagged),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn see(&mut self, run: usize, at: usize, number: usize) {
        let Some(means) = self.model.tags.get(&(at, number)).copied() else { return };
        let runs = &self.running().runs;
        let pinned =
            self.runtime.block_on(async { runs.pin(&format!("run-{run}"), &hosted(at), &tag(number), means).await });
        let pinned = pinned.unwrap();
        let expected = *self.model.runs.entry((run, at, number)).or_insert(means);
        assert_eq!(pinned, expected);
        if pinned == means {
            self.leased(at, means);
        }
    }

    fn of_upstream(&self, blob: usize, comes: bool) {
        let text = &UNIVERSE.blobs[blob];
        let (store, digest) = (&self.running().store, Digest::of(text.as_bytes()));
        self.runtime.block_on(async {
            if comes {
                let bytes = store.spool().stage(Bytes::copy_from_slice(text.as_bytes()), digest).await.unwrap();
                store.commit(&proxied(), Origin::Proxied, vec![Put::Blob(bytes)]).await.unwrap();
            } else {
                store.evict(&proxied(), vec![Drop::Link(digest)]).await.unwrap();
            }
        });
    }

    fn end_run(&mut self, run: usize) {
        self.runtime.block_on(self.running().runs.end(&format!("run-{run}"))).unwrap();
        self.model.runs.retain(|(of, _, _), _| *of != run);
    }

    fn pass(&self, time: Duration) {
        self.runtime.block_on(tokio::time::advance(time));
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Upload { at, blob } => self.upload(at, blob),
            Step::Mount { to, blob } => self.mount(to, blob),
            Step::Head { at, thing } => self.head(at, thing),
            Step::Put { at, manifest, tag } => self.put(at, manifest, tag),
            Step::PutWhole { at, manifest, tag } => self.put_whole(at, manifest, tag),
            Step::Untag { at, tag } => self.untag(at, tag, None),
            Step::Prune { at, tag, manifest } => self.untag(at, tag, Some(UNIVERSE.manifests[manifest].digest)),
            Step::Delete { at, manifest } => {
                let digest = UNIVERSE.manifests[manifest].digest;
                self.delete(at, digest, Removal::Manifest(digest));
            }
            Step::DeleteUntagged { at, manifest } => {
                let digest = UNIVERSE.manifests[manifest].digest;
                self.delete(at, digest, Removal::Untagged(digest));
            }
            Step::DeleteBlob { at, blob } => {
                let digest = Digest::of(UNIVERSE.blobs[blob].as_bytes());
                self.delete(at, digest, Removal::Blob(digest));
            }
            Step::Fill { blob } => self.of_upstream(blob, true),
            Step::Evict { blob } => self.of_upstream(blob, false),
            Step::See { run, at, tag } => self.see(run, at, tag),
            Step::EndRun { run } => self.end_run(run),
            Step::Collect => self.collect(),
            Step::Age { hours } => self.clock.advance(Duration::from_hours(hours)),
            Step::Leases => self.pass(self.lease + HOUR),
            Step::Restart => self.restart(false),
            Step::LoseIndex => self.restart(true),
        }
    }

    /// Only a collection takes what nobody removed, and each tag means what it meant, whole.
    fn check(&mut self) {
        let present = self.present();
        let lost: Vec<_> = self.model.present.difference(&present).collect();
        assert!(lost.is_empty(), "nothing removed {lost:?}");
        self.model.present = present;
        for at in 0..REPOSITORIES {
            let page = self.runtime.block_on(self.running().store.tags(&hosted(at), None, 100)).unwrap();
            let found: Vec<_> = page.rows.iter().map(|row| (row.record.tag.clone(), row.record.digest)).collect();
            let meant = self.model.tags.iter().filter(|((of, _), _)| *of == at);
            let meant: Vec<_> = meant.map(|((_, number), digest)| (tag(*number), *digest)).collect();
            assert_eq!(found, meant);
        }
        for ((at, _), digest) in &self.model.tags {
            self.is_whole(*at, digest);
        }
    }

    fn is_whole(&self, at: usize, digest: &Digest) {
        assert!(self.model.present.contains(&(at, *digest)), "{digest} is kept and not here");
        for named in UNIVERSE.known(digest).into_iter().flat_map(|known| known.blobs.iter().chain(&known.children)) {
            self.is_whole(at, named);
        }
    }

    /// When nothing protects anything for a time any more, exactly what is kept is there, and its bytes.
    fn check_rest(&mut self) {
        for run in 0..RUNS {
            self.end_run(run);
        }
        // The first notes what was replaced, the second takes it. What the store's own sweep has claimed at that moment, and has
        // not removed yet, is seen by the third.
        for _ in 0..3 {
            self.pass(self.lease + HOUR);
            self.clock.advance(KEEP);
            self.running.as_mut().unwrap().cycle = None;
            self.collect();
            while self.running().cycle.is_some() {
                self.collect();
            }
        }
        let began = self.runtime.block_on(async { Instant::now() });
        for place in &self.model.present {
            let keeper = self.model.keeper(place, began, self.clock.now(), KEEP);
            let kept = keeper.is_some() || self.model.pushed_again.contains(place);
            assert!(kept, "nothing keeps {place:?}, and it is here");
        }
        let store = &self.running().store;
        let blobs = self.runtime.block_on(store.blobs(None, 1000)).unwrap();
        for blob in blobs.rows {
            assert!(blob.links > 0, "nothing links {:?}", blob.key);
        }
    }
}

impl StateMachineTest for Collector {
    type SystemUnderTest = Self;
    type Reference = Reference;

    fn init_test(lease: &u64) -> Self {
        Self::new(Duration::from_hours(*lease))
    }

    fn apply(mut system: Self, _: &u64, step: Step) -> Self {
        system.take(&step);
        system.check();
        system
    }

    fn teardown(mut system: Self, _: <Reference as ReferenceStateMachine>::State) {
        system.check_rest();
        system.stop();
    }
}
