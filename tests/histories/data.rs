//! Real histories of registries and of CI, from the folder that `LARDER_DATA` names (`../shared/data` where it is unset):
//! Docker's official images from 2016 to 2018 with the sizes of all layers, and the pushes of nine repositories' branches.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use larder::clock::Timestamp;
use larder::config;
use larder::config::Sources;
use larder::config::retention::Policy;
use larder::oci::Class;
use larder::oci::Digest;
use larder::oci::RegistryName;
use larder::oci::RepositoryKey;
use larder::retention::plan::First;
use larder::retention::plan::Knowledge;
use larder::retention::plan::Place;
use larder::retention::plan::Plan;
use larder::retention::plan::Protections;
use larder::retention::plan::Question;
use larder::retention::plan::plan;
use larder::retention::records::Holding;
use larder::retention::records::ManifestFact;
use larder::retention::records::Pulled;
use larder::retention::records::TagFact;
use larder::retention::sizes::Graph;
use larder::retention::sizes::Root;

/// The folder; none where it is not there, which is said.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("LARDER_DATA").map_or_else(|| PathBuf::from("../shared/data"), PathBuf::from);
    if folder.join("README.md").is_file() {
        return Some(folder);
    }
    eprintln!("skipped: there are no histories in {}; LARDER_DATA names their folder", folder.display());
    None
}

/// The rows of a table, without its head.
pub(crate) fn rows(file: &Path) -> Vec<Vec<String>> {
    let unpacked = Command::new("gzip").arg("-dc").arg(file).output().unwrap();
    assert!(unpacked.status.success(), "{}", file.display());
    let text = String::from_utf8(unpacked.stdout).unwrap();
    text.lines().skip(1).map(|line| line.split(',').map(|cell| cell.trim_matches('"').to_owned()).collect()).collect()
}

/// What tags meant, from their first state to their last.
pub(crate) struct Images {
    /// The sizes of layers.
    pub(crate) sizes: Vec<u64>,
    /// The layers of manifests, those of amd64.
    pub(crate) layers: BTreeMap<usize, Vec<usize>>,
    /// By repository and tag.
    pub(crate) tags: BTreeMap<(String, String), History>,
    /// How often a tag was set to something else of amd64.
    pub(crate) sets: u64,
    /// The last event, in seconds.
    pub(crate) end: u64,
}

/// What a tag meant, one after the other, no two alike in a row. The order is that of the table, whose times are not always in
/// order: a state's time is its place there.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) states: Vec<(u64, Vec<usize>)>,
    pub(crate) is_live: bool,
}

impl Images {
    pub(crate) fn read(folder: &Path) -> Self {
        let folder = folder.join("doi-2016-2018");
        let sizes = rows(&folder.join("layers.csv.gz")).iter().map(|row| row[2].parse().unwrap()).collect();
        let mut layers = BTreeMap::new();
        for row in rows(&folder.join("manifests.csv.gz")) {
            if row[3] == "linux; amd64" {
                let mut of_one: Vec<usize> = row[9].split(' ').filter_map(|layer| layer.parse().ok()).collect();
                of_one.sort_unstable();
                of_one.dedup();
                layers.insert(row[0].parse().unwrap(), of_one);
            }
        }
        let mut images = Self { sizes, layers, tags: BTreeMap::new(), sets: 0, end: 0 };
        for (number, row) in (1_u64..).zip(rows(&folder.join("tag_events.csv.gz"))) {
            let at: u64 = row[0].parse().unwrap();
            images.end = images.end.max(at);
            let mut means: Vec<usize> = row[5].split(' ').filter_map(|one| one.parse().ok()).collect();
            means.retain(|manifest| images.layers.contains_key(manifest));
            means.sort_unstable();
            means.dedup();
            let sets = row[3] == "set" && !means.is_empty();
            let known = images.tags.contains_key(&(row[1].clone(), row[2].clone()));
            if !sets && !known {
                continue;
            }
            let history = images.tags.entry((row[1].clone(), row[2].clone())).or_default();
            let was_live = std::mem::replace(&mut history.is_live, sets);
            // Events of one second come in the order of the file.
            // What is set again after it was gone is a state of its own.
            if sets && !(was_live && history.states.last().is_some_and(|(_, last)| *last == means)) {
                images.sets += 1;
                history.states.push((number, means));
            }
        }
        images
    }

    fn manifest(&self, number: usize) -> ManifestFact {
        let blob = |layer: &usize| (digest("layer", *layer), self.sizes[*layer]);
        let blobs = self.layers[&number].iter().map(blob).collect();
        fact(digest("manifest", number), Vec::new(), blobs)
    }

    /// A repository for each, with a tag for each state of each tag that `takes` takes: `<tag>.<number>`, each with a digest
    /// of its own over the manifests that it meant.
    pub(crate) fn places(&self, takes: impl Fn(&History) -> bool) -> Vec<Place> {
        let mut places: BTreeMap<&str, (Vec<TagFact>, BTreeMap<Digest, ManifestFact>)> = BTreeMap::new();
        for ((repository, tag), history) in self.tags.iter().filter(|(_, history)| takes(history)) {
            let (tags, manifests) = places.entry(repository).or_default();
            for (number, (at, means)) in history.states.iter().enumerate() {
                let top = Digest::of(format!("{repository}:{tag} {number}").as_bytes());
                let children: Vec<Digest> = means.iter().map(|one| digest("manifest", *one)).collect();
                for one in means {
                    manifests.entry(digest("manifest", *one)).or_insert_with(|| self.manifest(*one));
                }
                manifests.insert(top, fact(top, children, Vec::new()));
                let name = format!("{tag}.{number}");
                let pulled = Pulled::NotSince(Timestamp(0));
                tags.push(TagFact { tag: name.parse().unwrap(), digest: top, pushed_at: Some(Timestamp(*at)), pulled });
            }
        }
        places
            .into_iter()
            .map(|(repository, (tags, manifests))| place(repository, tags, manifests.into_values().collect()))
            .collect()
    }

    /// One repository with a tag for each manifest that ever was tagged: `live.<number>`, or `gone.<number>` as old as the
    /// last moment when a tag meant it.
    pub(crate) fn manifests(&self, events: &[Vec<String>]) -> Vec<Place> {
        let mut bound: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
        let (mut untagged, mut live): (HashMap<usize, u64>, HashMap<usize, u32>) = (HashMap::new(), HashMap::new());
        for row in events {
            let means: Vec<usize> = row[5].split(' ').filter_map(|one| one.parse().ok()).collect();
            let means =
                means.into_iter().filter(|one| row[3] == "set" && self.layers.contains_key(one)).collect::<Vec<_>>();
            for one in &means {
                *live.entry(*one).or_default() += 1;
            }
            for one in bound.insert((&row[1], &row[2]), means).unwrap_or_default() {
                let count = live.get_mut(&one).unwrap();
                *count -= 1;
                if *count == 0 {
                    untagged.insert(one, row[0].parse().unwrap());
                }
            }
        }
        let (mut tags, mut manifests) = (Vec::new(), Vec::new());
        for (one, count) in live {
            let state = if count > 0 { "live" } else { "gone" };
            let at = if count > 0 { self.end } else { untagged[&one] };
            let tag = format!("{state}.{one}").parse().unwrap();
            let pushed_at = Some(Timestamp(at * 1000));
            tags.push(TagFact { tag, digest: digest("manifest", one), pushed_at, pulled: Pulled::Unknown });
            manifests.push(self.manifest(one));
        }
        vec![place("all", tags, manifests)]
    }
}

pub(crate) fn digest(kind: &str, number: usize) -> Digest {
    Digest::of(format!("{kind} {number}").as_bytes())
}

pub(crate) fn fact(digest: Digest, children: Vec<Digest>, blobs: Vec<(Digest, u64)>) -> ManifestFact {
    ManifestFact {
        digest,
        size: 0,
        class: Some(Class::Image),
        pushed_at: None,
        pulled: Pulled::Unknown,
        children,
        blobs,
        subject: None,
        id: None,
    }
}

pub(crate) fn place(name: &str, tags: Vec<TagFact>, manifests: Vec<ManifestFact>) -> Place {
    let repository = RepositoryKey::new(RegistryName::hosted(), format!("cache/{name}").parse().unwrap());
    Place { holding: Holding { repository, tags, manifests }, fixed: Arc::default() }
}

/// Policies as a configuration has them.
pub(crate) fn policies(yaml: &str) -> Vec<Policy> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("larder.yaml");
    std::fs::write(&file, format!("retention: {{ policies: [{yaml}] }}\n")).unwrap();
    let sources = Sources { file: Some(file), ..Sources::default() };
    config::load(&sources, &|_| None).unwrap_or_else(|error| panic!("{error}")).config.retention.policies
}

/// The repositories with their graph.
pub(crate) fn graph(places: &[Place]) -> Graph {
    Graph::of(places.iter().map(|place| &place.holding), |_| false)
}

pub(crate) fn decide(places: &[Place], graph: &Graph, policies: &[Policy], knowledge: &Knowledge, now: u64) -> Plan {
    let protections = Protections::default();
    let first = First::new();
    let now = Timestamp(now);
    plan(&Question { now, policies, protections: &protections, places, graph, knowledge, first: &first })
}

/// What all tags mean, those that go owned by 0 and those that stay by 1.
pub(crate) fn roots(places: &[Place], graph: &Graph, plan: &Plan) -> Vec<Root> {
    let mut roots = Vec::new();
    for decided in &plan.repositories {
        let holding = &places[decided.place].holding;
        let known = larder::retention::sizes::places(holding, graph.start(decided.place));
        for (fact, verdict) in holding.tags.iter().zip(&decided.tags) {
            roots.push(Root { entry: known[&fact.digest], owner: u32::from(verdict.goes().is_none()) });
        }
    }
    roots
}
