use std::time::Duration;

use super::known::BranchBook;
use super::known::BranchSource;
use super::known::ForgeRepository;
use super::known::PullBook;
use super::*;
use crate::config;
use crate::config::Sources;
use crate::config::retention::Retention;
use crate::oci::Class;
use crate::oci::RegistryName;
use crate::oci::RepositoryName;
use crate::retention::records::ManifestFact;
use crate::retention::records::Pulled;
use crate::retention::records::TagFact;

mod families;
mod policies;
mod properties;

const DAY: u64 = 86_400_000;
/// Long after the epoch, so that everything can be long ago.
const NOW: Timestamp = Timestamp(1000 * DAY);

/// So many days ago.
fn ago(days: u64) -> Timestamp {
    Timestamp(NOW.0 - days * DAY)
}

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn hosted(name: &str) -> RepositoryKey {
    RepositoryKey::new(RegistryName::hosted(), name.parse::<RepositoryName>().unwrap())
}

/// Reads the section as a configuration has it.
fn retention(yaml: &str) -> Retention {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("larder.yaml");
    std::fs::write(&file, yaml).unwrap();
    let sources = Sources { file: Some(file), ..Sources::default() };
    config::load(&sources, &|_| None).unwrap_or_else(|error| panic!("{error}")).config.retention
}

/// What there is to decide, and what is known.
#[derive(Clone, Debug)]
struct Scene {
    retention: Retention,
    places: Vec<Place>,
    knowledge: Knowledge,
    protections: Protections,
    first: First,
    now: Timestamp,
}

impl Scene {
    fn new(yaml: &str, repository: &str) -> Self {
        let retention = retention(yaml);
        let protections = Protections { configured: retention.protect.clone(), ..Protections::default() };
        let holding = Holding { repository: hosted(repository), tags: Vec::new(), manifests: Vec::new() };
        let places = vec![Place { holding, fixed: Arc::default() }];
        Self { retention, places, knowledge: Knowledge::default(), protections, first: First::new(), now: NOW }
    }

    fn holding(&mut self) -> &mut Holding {
        &mut self.places[0].holding
    }

    /// A manifest with one blob of its own.
    fn manifest(&mut self, name: &str) -> &mut ManifestFact {
        let digest = digest(name);
        let holding = self.holding();
        let at = holding.manifests.iter().position(|one| one.digest == digest).unwrap_or_else(|| {
            holding.manifests.push(ManifestFact {
                digest,
                size: 1,
                class: Some(Class::Image),
                pushed_at: Some(ago(100)),
                pulled: Pulled::NotSince(ago(200)),
                children: Vec::new(),
                blobs: vec![(self::digest(&format!("blob of {name}")), 10)],
                subject: None,
                id: None,
            });
            holding.manifests.len() - 1
        });
        &mut holding.manifests[at]
    }

    /// A tag that was pushed so many days ago and means the manifest of that name.
    fn tag(&mut self, tag: &str, means: &str, days: u64) -> &mut TagFact {
        let digest = self.manifest(means).digest;
        let fact = TagFact {
            tag: tag.parse().unwrap(),
            digest,
            pushed_at: Some(ago(days)),
            pulled: Pulled::NotSince(ago(200)),
        };
        let tags = &mut self.holding().tags;
        tags.push(fact);
        tags.last_mut().unwrap()
    }

    fn branches(&mut self, alive: &[&str], dead: &[(&str, u64)]) {
        let dead = dead.iter().map(|(branch, days)| (*branch, ago(*days)));
        let book = BranchBook::new(alive.iter().copied(), dead, ago(50), NOW);
        let of = ForgeRepository { forge: "github".to_owned(), repository: "acme/app".to_owned() };
        self.knowledge.branches.insert(BranchSource::Forge(of), Ok(book));
    }

    fn pulls(&mut self, book: PullBook) {
        let of = ForgeRepository { forge: "github".to_owned(), repository: "acme/app".to_owned() };
        self.knowledge.pulls.insert(of, Ok(book));
    }

    fn plan(&self) -> Plan {
        let graph = Graph::of(self.places.iter().map(|place| &place.holding), |_| false);
        plan(&Question {
            now: self.now,
            policies: &self.retention.policies,
            protections: &self.protections,
            places: &self.places,
            graph: &graph,
            knowledge: &self.knowledge,
            first: &self.first,
        })
    }

    /// The tags that go, in order.
    fn going(&self) -> Vec<String> {
        let plan = self.plan();
        let tags = self.places[0].holding.tags.iter().zip(&plan.repositories[0].tags);
        let mut going: Vec<String> =
            tags.filter(|(_, verdict)| verdict.goes().is_some()).map(|(fact, _)| fact.tag.to_string()).collect();
        going.sort();
        going
    }

    /// What becomes of a tag, in words.
    fn said(&self, tag: &str) -> String {
        let plan = self.plan();
        let at = self.places[0].holding.tags.iter().position(|fact| fact.tag.as_str() == tag).unwrap();
        let names = Names { policies: &self.retention.policies, protect: &self.retention.protect };
        names.sentence(&plan.repositories[0].tags[at])
    }
}

/// One policy for `cache/{repo}` with these lines, and no grace.
fn policy(lines: &str) -> String {
    let head = "retention:\n  policies:\n  - name: p\n    repositories: [\"cache/{repo}\"]\n    grace: 0s\n";
    let lines: Vec<String> = lines.lines().map(|line| format!("    {}\n", line.trim_start())).collect();
    format!("{head}{}", lines.concat())
}
