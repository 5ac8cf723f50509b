//! Plans over real histories: to the byte what was worked out from them by other means, and nothing of what lives.
//!
//! They are no part of the repository; where they are not at hand these tests say so and pass.

#![expect(clippy::unwrap_used, reason = "helpers of a test may fail the test")]
#![expect(clippy::indexing_slicing, reason = "a mistake here fails the test")]
#![expect(clippy::print_stderr, reason = "what is skipped is said")]

mod branches;
mod data;

use std::sync::LazyLock;

use data::Images;
use larder::retention::plan::Knowledge;
use larder::retention::sizes::Root;
use larder::retention::sizes::Taken;

/// The images, what is expected of them, and the rows that they are from.
type Expected = (Images, serde_json::Value, Vec<Vec<String>>);

/// Read once for all tests.
static IMAGES: LazyLock<Option<Expected>> = LazyLock::new(read);

fn read() -> Option<Expected> {
    let folder = data::folder()?;
    let text = std::fs::read_to_string(folder.join("sim-reference/expected_doi_2016_2018.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let events = data::rows(&folder.join("doi-2016-2018/tag_events.csv.gz"));
    Some((Images::read(&folder), expected["amd64"].clone(), events))
}

fn sum(taken: &[Taken], of: fn(&Taken) -> u64) -> u64 {
    taken.iter().map(of).sum()
}

#[test]
fn the_bytes_of_official_images_are_known_to_the_byte() {
    let Some((images, expected, _)) = &*IMAGES else { return };
    assert_eq!(images.sets, expected["effective_sets"]);
    assert_eq!(images.tags.len() as u64, expected["tags_ever"]);
    assert_eq!(images.end, expected["end_unix"]);
    let ever = images.places(|_| true);
    let graph = data::graph(&ever);
    let all = |count: u32| (0..count).map(|entry| Root { entry, owner: 0 }).collect::<Vec<_>>();
    assert_eq!(graph.taken(&all(graph.entries()), 1)[0].total, expected["ever_unique_bytes"]);

    // What is live: the last state of each tag, one tag each.
    assert_eq!(images.tags.values().filter(|history| history.is_live).count() as u64, expected["live_tags"]);
    let mut places = images.places(|history| history.is_live);
    for place in &mut places {
        keep_last(place);
    }
    assert_eq!(places.len() as u64, expected["live_repos"]);
    let graph = data::graph(&places);
    let mut of_tags = Vec::new();
    let mut of_manifests = std::collections::BTreeMap::new();
    for (number, place) in places.iter().enumerate() {
        let known = larder::retention::sizes::places(&place.holding, graph.start(number));
        for fact in &place.holding.tags {
            of_tags.push(Root { entry: known[&fact.digest], owner: u32::try_from(of_tags.len()).unwrap() });
        }
        for fact in place.holding.manifests.iter().filter(|fact| fact.children.is_empty()) {
            of_manifests.entry(fact.digest).or_insert_with(Vec::new).push(known[&fact.digest]);
        }
    }
    let tags = graph.taken(&of_tags, of_tags.len());
    assert_eq!(sum(&tags, |one| one.total), expected["sum_over_tags_bytes"]);
    assert_eq!(of_manifests.len() as u64, expected["live_manifests"]);
    let roots: Vec<Root> = (0..)
        .zip(of_manifests.values())
        .flat_map(|(owner, entries)| entries.iter().map(move |entry| Root { entry: *entry, owner }))
        .collect();
    // The indexes that hold the states are nobody's: they have no bytes.
    let manifests = graph.taken(&roots, of_manifests.len());
    assert_eq!(sum(&manifests, |one| one.total), expected["sum_over_live_manifests_bytes"]);
    assert_eq!(sum(&manifests, |one| one.exclusive), expected["live_exclusive_bytes_sum"]);
    assert_eq!(graph.taken(&all(graph.entries()), 1)[0].total, expected["live_unique_bytes"]);
}

/// Leaves the last state of each tag, and what it needs.
fn keep_last(place: &mut larder::retention::plan::Place) {
    let holding = &mut place.holding;
    let mut last = std::collections::BTreeMap::new();
    for fact in holding.tags.drain(..) {
        let (tag, number) = fact.tag.as_str().rsplit_once('.').unwrap();
        last.insert(tag.to_owned(), (number.parse::<u32>().unwrap(), fact.clone()));
    }
    holding.tags = last.into_values().map(|(_, fact)| fact).collect();
    let tops: std::collections::BTreeSet<_> = holding.tags.iter().map(|fact| fact.digest).collect();
    let tagged = holding.manifests.iter().filter(|fact| tops.contains(&fact.digest));
    let needed: std::collections::BTreeSet<_> =
        tagged.flat_map(|fact| fact.children.clone()).chain(tops.clone()).collect();
    holding.manifests.retain(|fact| needed.contains(&fact.digest));
}

#[test]
fn what_newest_keeps_of_official_images_is_known_to_the_byte() {
    let Some((images, expected, _)) = &*IMAGES else { return };
    for (takes, key) in [
        ((|_| true) as fn(&data::History) -> bool, "keep_last_n_of_every_tag_unique_bytes"),
        (|history| history.is_live, "keep_last_n_of_live_tags_unique_bytes"),
    ] {
        let places = images.places(takes);
        let graph = data::graph(&places);
        for (newest, bytes) in expected[key].as_object().unwrap() {
            let policy = data::policies(&format!(
                "{{ name: p, repositories: [\"cache/{{repo}}\"], select: [\"{{name}}.{{n}}\"], count_by: name, keep: [{{ newest: {newest} }}], grace: 0s }}"
            ));
            let decided = data::decide(&places, &graph, &policy, &Knowledge::default(), images.end * 1000);
            let taken = graph.taken(&data::roots(&places, &graph, &decided), 2);
            assert_eq!(taken[1].total, *bytes, "{key} {newest}");
            // What goes and what stays together are all there is.
            let all: Vec<Root> = (0..graph.entries()).map(|entry| Root { entry, owner: 0 }).collect();
            assert_eq!(taken[0].exclusive + taken[1].total, graph.taken(&all, 1)[0].total);
        }
    }
}

#[test]
fn what_a_grace_of_days_keeps_of_official_images_is_known_to_the_byte() {
    let Some((images, expected, events)) = &*IMAGES else { return };
    let places = images.manifests(events);
    let graph = data::graph(&places);
    for (days, bytes) in expected["untagged_grace_days_unique_bytes"].as_object().unwrap() {
        let policy = data::policies(&format!(
            "{{ name: p, repositories: [\"cache/all\"], select: [all], keep: [{{ pushed_within: {days}d }}, {{ tags: [\"live.*\"] }}], grace: 0s }}"
        ));
        // What is exactly so many days old counts as kept there.
        let decided = data::decide(&places, &graph, &policy, &Knowledge::default(), images.end * 1000 - 1);
        let taken = graph.taken(&data::roots(&places, &graph, &decided), 2);
        assert_eq!(taken[1].total, *bytes, "{days} days");
        let kept = decided.repositories[0].tags.iter().filter(|verdict| verdict.goes().is_none()).count();
        assert_eq!(kept as u64, expected["manifests_retained_grace_days"][days], "{days} days");
    }
}
