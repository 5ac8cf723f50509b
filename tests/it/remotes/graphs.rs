//! Repositories by chance, in front of each dialect: what is planned is what is executed, nothing that stays loses anything,
//! and a listing that fails deletes nothing.
//!
//! `LARDER_GRAPHS` says how many repositories each dialect gets; the seed of one that fails is in the message.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use larder::config::retention::Adapter;
use larder::oci::Digest;
use larder::retention::records::Holding;
use larder::retention::remote::Caps;
use larder::retention::remote::Doomed;
use larder::retention::remote::Outcome;
use larder::retention::remote::Refused;
use larder::retention::remote::Target;

use super::dockerhub;
use super::ecr;
use super::gar;
use super::ghcr;
use super::gitlab;
use super::harbor;
use super::model::Model;
use super::model::Random;
use super::model::Repository;
use super::quay;
use super::server::Front;
use super::server::Reply;
use super::server::Server;
use super::v2;

/// Which manifests a dialect tells of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lists {
    /// All.
    All,
    /// Those that tags reach.
    Reached,
    /// Those that tags reach, and those that nothing names or that are attached to nothing.
    Roots,
    /// Those that tags mean, and what they name at once.
    OneLevel,
}

/// What a dialect can do, in the words of its documentation.
#[derive(Clone, Copy)]
struct Dialect {
    adapter: Adapter,
    front: Front,
    /// What it deletes, and what goes with that.
    caps: Caps,
    /// Which manifests it tells of.
    lists: Lists,
}

impl Dialect {
    fn name(self, seed: u64) -> String {
        if self.adapter == Adapter::Gar { format!("acme/docker/r{seed}") } else { format!("acme/r{seed}") }
    }
}

const OCI: Dialect = Dialect { adapter: Adapter::Oci, front: v2::front, caps: Caps::TAGS, lists: Lists::Reached };

const GHCR: Dialect = Dialect { adapter: Adapter::Ghcr, front: ghcr::front, caps: Caps::MANIFESTS, lists: Lists::All };

const ECR: Dialect =
    Dialect { adapter: Adapter::Ecr, front: ecr::front, caps: Caps::LAST_TAG_TAKES, lists: Lists::All };

const DOCKER_HUB: Dialect =
    Dialect { adapter: Adapter::DockerHub, front: dockerhub::front, caps: Caps::TAGS, lists: Lists::OneLevel };

const GITLAB: Dialect =
    Dialect { adapter: Adapter::Gitlab, front: gitlab::front, caps: Caps::TAGS, lists: Lists::Reached };

const HARBOR: Dialect =
    Dialect { adapter: Adapter::Harbor, front: harbor::front, caps: Caps::TAGS_AND_MANIFESTS, lists: Lists::Roots };

const GAR: Dialect =
    Dialect { adapter: Adapter::Gar, front: gar::front, caps: Caps::TAGS_AND_MANIFESTS, lists: Lists::All };

const QUAY: Dialect = Dialect { adapter: Adapter::Quay, front: quay::front, caps: Caps::TAGS, lists: Lists::Reached };

fn count() -> u64 {
    std::env::var("LARDER_GRAPHS").ok().map_or(40, |text| text.parse().unwrap())
}

/// What the dialect deletes of it when all goes well, worked out in another way than the adapters do.
fn expected(
    dialect: Dialect,
    before: &Repository,
    listed: &BTreeSet<Digest>,
    doomed: &[Doomed],
) -> (BTreeSet<String>, BTreeSet<Digest>) {
    let tags: BTreeSet<String> = doomed
        .iter()
        .filter_map(|doomed| match doomed {
            Doomed::Tag { tag, .. } => Some(tag.to_string()),
            Doomed::Untagged { .. } => None,
        })
        .collect();
    let takes = !dialect.caps.tags || dialect.caps.last_tag_takes_manifest;
    let goes = |digest: &Digest| {
        let of = before.tags_of(digest);
        let is_untagged =
            dialect.caps.manifests && listed.contains(digest) && doomed.contains(&Doomed::Untagged { digest: *digest });
        is_untagged || (takes && !of.is_empty() && of.iter().all(|tag| tags.contains(tag)))
    };
    let (going, staying): (BTreeSet<Digest>, BTreeSet<Digest>) =
        before.manifests.keys().partition(|digest| goes(digest));
    let kept = before.closure(staying);
    let manifests: BTreeSet<Digest> = going.difference(&kept).copied().collect();
    let tags = tags.into_iter().filter(|tag| {
        let digest = &before.tags[tag];
        let of = before.tags_of(digest);
        let all = of.iter().all(|other| doomed_tag(doomed, other));
        if takes && all { manifests.contains(digest) } else { dialect.caps.tags }
    });
    (tags.collect(), manifests)
}

fn doomed_tag(doomed: &[Doomed], name: &str) -> bool {
    doomed.iter().any(|doomed| matches!(doomed, Doomed::Tag { tag, .. } if tag.as_str() == name))
}

/// What is listed is what is there: every tag, and every manifest that the dialect can know of.
fn check_listing(dialect: Dialect, before: &Repository, holding: &Holding, seed: u64) {
    let tags: BTreeMap<String, Digest> = holding.tags.iter().map(|fact| (fact.tag.to_string(), fact.digest)).collect();
    assert_eq!(tags, before.tags, "seed {seed}");
    let listed: BTreeSet<Digest> = holding.manifests.iter().map(|fact| fact.digest).collect();
    let mut there: BTreeSet<Digest> = before.manifests.keys().copied().collect();
    if dialect.lists != Lists::All {
        let mut reached = BTreeSet::new();
        let mut next: Vec<(Digest, bool)> = before.tags.values().map(|digest| (*digest, true)).collect();
        if dialect.lists == Lists::Roots {
            let is_named = |digest: &Digest| before.manifests.values().any(|held| held.children.contains(digest));
            let is_root = |digest: &Digest| before.manifests[digest].subject.is_none() && !is_named(digest);
            next.extend(before.manifests.keys().filter(|digest| is_root(digest)).map(|digest| (*digest, true)));
        }
        while let Some((digest, goes_on)) = next.pop() {
            if !there.contains(&digest) {
                continue;
            }
            reached.insert(digest);
            if goes_on {
                let deeper = dialect.lists != Lists::OneLevel;
                next.extend(before.manifests[&digest].children.iter().map(|child| (*child, deeper)));
            }
        }
        there = reached;
    }
    assert_eq!(listed, there, "seed {seed}");
}

/// One repository from its listing to its end.
async fn one(dialect: Dialect, server: &Server, seed: u64) {
    let mut random = Random::with_seed(seed);
    let text = dialect.name(seed);
    let name = text.parse().unwrap();
    let doomed = server.model(|model| {
        model.page = 1 + usize::try_from(random.u64(0..4)).unwrap();
        model.by_chance(&text, &mut random);
        model.doom(&text, &mut random)
    });
    let before = server.model(|model| model.repository(&text).clone());
    let remote = server.open(dialect.adapter);
    let holding = remote.list(&name).await.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    check_listing(dialect, &before, &holding, seed);
    let listed = holding.manifests.iter().map(|fact| fact.digest).collect();
    let (calls, refused) = remote.calls(&holding, &doomed);
    let mut deleted: (BTreeSet<String>, BTreeSet<Digest>) = Default::default();
    for call in &calls {
        let outcome = remote.carry_out(&name, call).await.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        assert_eq!(outcome, Outcome::Deleted, "seed {seed}: {call:?}");
        deleted.0.extend(call.target.tags().iter().map(ToString::to_string));
        if let Target::Manifest { digest, .. } = &call.target {
            deleted.1.insert(*digest);
        }
    }
    let after = server.model(|model| model.repository(&text).clone());
    let executed: BTreeSet<String> = after.deleted_tags.iter().cloned().collect();
    assert_eq!(executed, deleted.0, "seed {seed}: what was deleted is what was planned");
    let gone: BTreeSet<Digest> = after.deleted_manifests.iter().copied().collect();
    let (tags, manifests) = expected(dialect, &before, &listed, &doomed);
    assert_eq!((executed, gone.clone()), (tags, manifests), "seed {seed}: {calls:#?} {refused:#?}");
    assert_eq!(
        planned(&doomed, &refused),
        deleted_of(&doomed, &after, &gone),
        "seed {seed}: each is deleted or refused"
    );
    // What stays is whole.
    let roots = before.manifests.keys().filter(|digest| !gone.contains(digest)).copied();
    for digest in before.closure(roots) {
        assert!(after.manifests.contains_key(&digest), "seed {seed}: {digest} is needed by what stays");
    }
}

/// What was asked for, less what was refused.
fn planned(doomed: &[Doomed], refused: &[Refused]) -> usize {
    doomed.len() - refused.len()
}

/// What of it is gone.
fn deleted_of(doomed: &[Doomed], after: &Repository, gone: &BTreeSet<Digest>) -> usize {
    let is_gone = |doomed: &&Doomed| match doomed {
        Doomed::Tag { tag, .. } => !after.tags.contains_key(tag.as_str()),
        Doomed::Untagged { digest } => gone.contains(digest),
    };
    doomed.iter().filter(is_gone).count()
}

/// Somebody pushes, moves and deletes between the plan and its execution.
fn meanwhile(model: &mut Model, name: &str, random: &mut Random) {
    for number in 0..random.u64(1..5) {
        let held = model.repository(name);
        let all: Vec<Digest> = held.manifests.keys().copied().collect();
        let tags: Vec<String> = held.tags.keys().cloned().collect();
        let (digest, other) = (*random.choice(&all).unwrap(), *random.choice(&all).unwrap());
        let tag = random.choice(&tags).cloned();
        match (random.u64(0..4), tag) {
            (0, Some(tag)) => model.tag(name, &tag, digest),
            (1, Some(tag)) => drop(held.tags.remove(&tag)),
            (2, _) => model.tag(name, &format!("new{number}"), digest),
            _ => {
                let index = model.index(name, &format!("meanwhile {number}"), &[digest, other]);
                model.tag(name, &format!("index{number}"), index);
            }
        }
    }
}

/// What is not as it was when it was planned stays, and nothing that stays loses anything.
async fn one_meanwhile(dialect: Dialect, server: &Server, seed: u64) {
    let mut random = Random::with_seed(seed);
    let text = dialect.name(seed);
    let name = text.parse().unwrap();
    let doomed = server.model(|model| {
        model.by_chance(&text, &mut random);
        model.doom(&text, &mut random)
    });
    let planner = server.open(dialect.adapter);
    let holding = planner.list(&name).await.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    let (calls, _) = planner.calls(&holding, &doomed);
    let before = server.model(|model| {
        meanwhile(model, &text, &mut random);
        model.repository(&text).clone()
    });
    // The plan may also be read by another program, which has listed nothing.
    let remote = if random.bool() { planner } else { server.open(dialect.adapter) };
    for call in &calls {
        let outcome = remote.carry_out(&name, call).await.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        assert!(!matches!(outcome, Outcome::Unsupported(_)), "seed {seed}: {outcome:?}");
    }
    let after = server.model(|model| model.repository(&text).clone());
    for tag in &after.deleted_tags {
        let meant = Doomed::Tag { tag: tag.parse().unwrap(), digest: before.tags[tag] };
        assert!(doomed.contains(&meant), "seed {seed}: {tag} was not planned to go, or means something else by now");
    }
    for digest in &after.deleted_manifests {
        let is_planned = calls.iter().any(|call| call.target.digest() == digest);
        assert!(is_planned, "seed {seed}: {digest} was not planned to go");
    }
    let named: BTreeSet<Digest> = after.manifests.values().flat_map(|held| held.children.clone()).collect();
    for digest in named.iter().chain(after.tags.values()).filter(|digest| before.manifests.contains_key(digest)) {
        assert!(after.manifests.contains_key(digest), "seed {seed}: {digest} is needed by what stays");
    }
}

/// One request of a listing fails, whichever it is.
async fn one_fault(dialect: Dialect, seed: u64) {
    let mut random = Random::with_seed(seed);
    let text = dialect.name(seed);
    let name = text.parse().unwrap();
    let server = Server::start(dialect.front).await;
    server.model(|model| {
        model.page = 1 + usize::try_from(random.u64(0..3)).unwrap();
        model.by_chance(&text, &mut random);
    });
    let whole = server.open(dialect.adapter).list(&name).await.unwrap();
    let requests = server.seen().len();
    let at = random.usize(0..requests);
    let kind = random.u64(0..5);
    let asked = std::sync::atomic::AtomicUsize::new(0);
    server.forget();
    server.script(move |_| {
        // From there on, so that a second try does not help.
        let number = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        (number >= at).then(|| match kind {
            0 => Reply::error(500, "UNKNOWN"),
            1 => Reply::empty(200).with("content-type", "text/html").body("<html>sign in</html>"),
            2 => Reply::error(403, "DENIED"),
            3 => Reply::error(429, "TOOMANYREQUESTS").with("retry-after", "1000"),
            _ => Reply::empty(200).with("content-type", "application/json").body("{\"tags\": [\"t"),
        })
    });
    match server.open(dialect.adapter).list(&name).await {
        Err(_) => {}
        // Requests may come in another order; what is given nevertheless is whole.
        Ok(holding) => assert_eq!(holding.tags, whole.tags, "seed {seed}"),
    }
    assert_eq!(server.deletes(), Vec::<String>::new(), "seed {seed}");
}

async fn run(dialect: Dialect) {
    let server = Server::start(dialect.front).await;
    for seed in 0..count() {
        one(dialect, &server, seed).await;
        server.forget();
        server.model(|model| model.repositories.clear());
    }
    for seed in 0..count() / 2 {
        one_meanwhile(dialect, &server, 1_000_000 + seed).await;
        server.forget();
        server.model(|model| model.repositories.clear());
    }
    for seed in 0..count() / 4 {
        one_fault(dialect, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oci_deletes_what_is_planned_and_nothing_else() {
    run(OCI).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ghcr_deletes_what_is_planned_and_nothing_else() {
    run(GHCR).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ecr_deletes_what_is_planned_and_nothing_else() {
    run(ECR).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_hub_deletes_what_is_planned_and_nothing_else() {
    run(DOCKER_HUB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gitlab_deletes_what_is_planned_and_nothing_else() {
    run(GITLAB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn harbor_deletes_what_is_planned_and_nothing_else() {
    run(HARBOR).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gar_deletes_what_is_planned_and_nothing_else() {
    run(GAR).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quay_deletes_what_is_planned_and_nothing_else() {
    run(QUAY).await;
}
