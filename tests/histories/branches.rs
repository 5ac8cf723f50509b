//! The pushes of branches: nothing of an open one goes, and nearly everything else does.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use larder::clock::Timestamp;
use larder::oci::Digest;
use larder::retention::plan::Knowledge;
use larder::retention::plan::Place;
use larder::retention::plan::known::BranchBook;
use larder::retention::plan::known::BranchSource;
use larder::retention::plan::known::ForgeRepository;
use larder::retention::records::Pulled;
use larder::retention::records::TagFact;

use crate::data;

/// What a team would write: open branches and a week more, three of the main one, releases untouched.
const POLICIES: &str = "
{ name: branches, repositories: [\"cache/{repo}\"], select: [\"{branch|slug}-{sha:7}\"], except: [\"v*\", \"main-*\"],
  keep: [{ branch_alive: { forge: github, repository: \"acme/{repo}\", then: 7d } }], grace: 0s },
{ name: main, repositories: [\"cache/{repo}\"], select: [\"main-{sha:7}\"], keep: [{ newest: 3 }, { pushed_within: 7d }], grace: 0s }";

struct Push {
    branch: String,
    tag: String,
    at: u64,
    ends: u64,
}

/// The pushes of each repository.
fn pushes(folder: &std::path::Path) -> BTreeMap<String, Vec<Push>> {
    let mut repositories: BTreeMap<String, Vec<Push>> = BTreeMap::new();
    for (number, row) in data::rows(&folder.join("ci-pushes/pushes.csv.gz")).into_iter().enumerate() {
        let repository = row[0].rsplit('/').next().unwrap().to_lowercase();
        let is_main = row[1] == "main";
        let branch = match (is_main, row[3].as_str()) {
            (true, _) => "main".to_owned(),
            (false, "") => format!("pr/{}", row[2]),
            (false, named) => format!("{}/{named}", row[2]),
        };
        let sha: String = row[4].chars().take(7).collect();
        // Now and then the main branch is released.
        let tag = if is_main && number % 50 == 0 {
            format!("v1.{number}.0")
        } else {
            format!("{}-{sha}", larder::pattern::template::slug(&branch))
        };
        let (at, ends) = (row[5].parse().unwrap(), row[6].parse().unwrap());
        repositories.entry(repository).or_default().push(Push { branch, tag, at, ends });
    }
    repositories
}

/// The repositories as they would be at a time if nothing had ever gone: each image has layers that all of its repository
/// share, and some of its own, of real sizes.
fn places(pushes: &BTreeMap<String, Vec<Push>>, sizes: &[u64], now: u64) -> Vec<Place> {
    let mut places = Vec::new();
    for (number, (repository, pushes)) in pushes.iter().enumerate() {
        let (mut tags, mut manifests, mut known) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (at, push) in pushes.iter().enumerate().filter(|(_, push)| push.at <= now) {
            if push.tag.len() > 128 || !known.insert(push.tag.clone()) {
                continue;
            }
            let layer = |kind: String, at: usize| (Digest::of(kind.as_bytes()), sizes[(at * 7919) % sizes.len()]);
            let shared = (0..4)
                .map(|layer_number| layer(format!("{repository} base {layer_number}"), number * 10 + layer_number));
            let own =
                (0..3).map(|layer_number| layer(format!("{repository} {at} {layer_number}"), at * 3 + layer_number));
            let digest = Digest::of(format!("{repository} {at}").as_bytes());
            manifests.push(data::fact(digest, Vec::new(), shared.chain(own).collect()));
            let pushed_at = Some(Timestamp(push.at * 1000));
            tags.push(TagFact { tag: push.tag.parse().unwrap(), digest, pushed_at, pulled: Pulled::Unknown });
        }
        places.push(data::place(repository, tags, manifests));
    }
    places
}

fn knowledge(pushes: &BTreeMap<String, Vec<Push>>, now: u64) -> Knowledge {
    let mut knowledge = Knowledge::default();
    for (repository, pushes) in pushes {
        let pushes = || pushes.iter().filter(|push| push.at <= now && push.branch != "main");
        let alive = pushes().filter(|push| push.ends > now).map(|push| push.branch.as_str());
        let dead =
            pushes().filter(|push| push.ends <= now).map(|push| (push.branch.as_str(), Timestamp(push.ends * 1000)));
        let book = BranchBook::new(alive, dead, Timestamp(0), Timestamp(now * 1000));
        let of = ForgeRepository { forge: "github".to_owned(), repository: format!("acme/{repository}") };
        knowledge.branches.insert(BranchSource::Forge(of), Ok(book));
    }
    knowledge
}

#[test]
fn no_tag_of_an_open_branch_goes_and_nearly_everything_else_does() {
    let Some(folder) = data::folder() else { return };
    let pushes = pushes(&folder);
    let sizes = data::Images::read(&folder).sizes;
    let policies = data::policies(POLICIES);
    let mut times: Vec<u64> = pushes.values().flatten().map(|push| push.at).collect();
    times.sort_unstable();
    for share in [25, 50, 75, 100] {
        let now = times[(times.len() - 1) * share / 100];
        let places = places(&pushes, &sizes, now);
        let graph = data::graph(&places);
        let knowledge = knowledge(&pushes, now);
        let plan = data::decide(&places, &graph, &policies, &knowledge, now * 1000);
        let mut open = 0;
        for decided in &plan.repositories {
            let holding = &places[decided.place].holding;
            let name = holding.repository.name.as_str().trim_start_matches("cache/");
            let by_tag: BTreeMap<&str, &Push> = pushes[name].iter().map(|push| (push.tag.as_str(), push)).collect();
            for (fact, verdict) in holding.tags.iter().zip(&decided.tags) {
                let push = by_tag[fact.tag.as_str()];
                if push.branch != "main" && push.ends > now {
                    open += 1;
                    assert!(verdict.goes().is_none(), "{} of an open branch would go", fact.tag);
                }
                assert!(
                    !fact.tag.as_str().starts_with('v') || verdict.goes().is_none(),
                    "the release {} would go",
                    fact.tag
                );
            }
        }
        let taken = graph.taken(&data::roots(&places, &graph, &plan), 2);
        let all = taken[0].exclusive + taken[1].total;
        eprintln!("at {now}: {open} tags of open branches stay; {} % of the bytes go", taken[0].exclusive * 100 / all);
        assert!(taken[0].exclusive * 100 >= all * 85, "{} of {all} bytes go", taken[0].exclusive);
    }
}
