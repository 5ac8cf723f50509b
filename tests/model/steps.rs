//! The steps, and how often each is drawn.

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use crate::universe::REPOSITORIES;
use crate::universe::RUNS;
use crate::universe::TAGS;
use crate::universe::UNIVERSE;

/// One thing that happens. Numbers are places in the universe.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A blob comes.
    Upload { at: usize, blob: usize },
    /// A blob is linked from the other repository, if it has it.
    Mount { to: usize, blob: usize },
    /// A pusher is told whether something is here.
    Head { at: usize, thing: usize },
    /// A manifest comes, with a tag or by its digest alone.
    Put { at: usize, manifest: usize, tag: Option<usize> },
    /// A manifest comes with all that it names.
    PutWhole { at: usize, manifest: usize, tag: Option<usize> },
    /// A tag goes.
    Untag { at: usize, tag: usize },
    /// A tag goes if it still means this.
    Prune { at: usize, tag: usize, manifest: usize },
    /// A manifest goes with its tags.
    Delete { at: usize, manifest: usize },
    /// A manifest goes if no tag means it.
    DeleteUntagged { at: usize, manifest: usize },
    /// A blob goes if nothing names it.
    DeleteBlob { at: usize, blob: usize },
    /// An upstream's repository gets the same bytes.
    Fill { blob: usize },
    /// And loses them.
    Evict { blob: usize },
    /// A run sees a tag.
    See { run: usize, at: usize, tag: usize },
    /// A run is over.
    EndRun { run: usize },
    /// One step of a collection.
    Collect,
    /// Hours pass.
    Age { hours: u64 },
    /// The lease time passes.
    Leases,
    /// The process ends and starts again.
    Restart,
    /// The process ends, and starts again without its index.
    LoseIndex,
}

/// What is decided once a row: the lease time in hours.
pub(crate) struct Reference;

impl ReferenceStateMachine for Reference {
    type State = u64;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<u64> {
        prop_oneof![Just(0), Just(1), Just(10_000)].boxed()
    }

    fn transitions(_: &u64) -> BoxedStrategy<Step> {
        let at = 0..REPOSITORIES;
        let blob = 0..UNIVERSE.blobs.len();
        let manifest = 0..UNIVERSE.manifests.len();
        let thing = 0..UNIVERSE.blobs.len() + UNIVERSE.manifests.len();
        let tag = 0..TAGS;
        let tags = || proptest::option::of(0..TAGS);
        prop_oneof![
            3 => (at.clone(), blob.clone()).prop_map(|(at, blob)| Step::Upload { at, blob }),
            2 => (at.clone(), blob.clone()).prop_map(|(to, blob)| Step::Mount { to, blob }),
            4 => (at.clone(), thing).prop_map(|(at, thing)| Step::Head { at, thing }),
            4 => (at.clone(), manifest.clone(), tags()).prop_map(|(at, manifest, tag)| Step::Put { at, manifest, tag }),
            8 => (at.clone(), manifest.clone(), tags())
                .prop_map(|(at, manifest, tag)| Step::PutWhole { at, manifest, tag }),
            6 => (at.clone(), tag.clone()).prop_map(|(at, tag)| Step::Untag { at, tag }),
            1 => (at.clone(), tag.clone(), manifest.clone())
                .prop_map(|(at, tag, manifest)| Step::Prune { at, tag, manifest }),
            2 => (at.clone(), manifest.clone()).prop_map(|(at, manifest)| Step::Delete { at, manifest }),
            1 => (at.clone(), manifest).prop_map(|(at, manifest)| Step::DeleteUntagged { at, manifest }),
            1 => (at.clone(), blob.clone()).prop_map(|(at, blob)| Step::DeleteBlob { at, blob }),
            1 => blob.clone().prop_map(|blob| Step::Fill { blob }),
            1 => blob.prop_map(|blob| Step::Evict { blob }),
            6 => (0..RUNS, at, tag).prop_map(|(run, at, tag)| Step::See { run, at, tag }),
            1 => (0..RUNS).prop_map(|run| Step::EndRun { run }),
            30 => Just(Step::Collect),
            3 => (1_u64..60).prop_map(|hours| Step::Age { hours }),
            2 => Just(Step::Leases),
            1 => proptest::bool::weighted(0.2).prop_map(|lost| if lost { Step::LoseIndex } else { Step::Restart }),
        ]
        .boxed()
    }

    fn apply(lease: u64, _: &Step) -> u64 {
        lease
    }
}
