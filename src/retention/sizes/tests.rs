use std::collections::BTreeMap;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::oci::RegistryName;
use crate::oci::RepositoryKey;
use crate::retention::records::ManifestFact;
use crate::retention::records::Pulled;

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn manifest(name: &str, size: u64, children: &[&str], blobs: &[(&str, u64)]) -> ManifestFact {
    ManifestFact {
        digest: digest(name),
        size,
        class: None,
        pushed_at: None,
        pulled: Pulled::Unknown,
        children: children.iter().map(|child| digest(child)).collect(),
        blobs: blobs.iter().map(|(blob, size)| (digest(blob), *size)).collect(),
        subject: None,
        id: None,
    }
}

fn holding(name: &str, manifests: Vec<ManifestFact>) -> Holding {
    let repository = RepositoryKey::new(RegistryName::hosted(), name.parse().unwrap());
    Holding { repository, tags: Vec::new(), manifests }
}

fn root(entry: Entry, owner: u32) -> Root {
    Root { entry, owner }
}

fn pairs(taken: &[Taken]) -> Vec<(u64, u64)> {
    taken.iter().map(|one| (one.exclusive, one.shared())).collect()
}

#[test]
fn what_two_share_is_nobodys_alone() {
    let app = vec![
        manifest("a", 1, &[], &[("base", 100), ("a1", 10)]),
        manifest("b", 1, &[], &[("base", 100), ("b1", 20)]),
        manifest("index", 1, &["a", "b"], &[]),
    ];
    let graph = Graph::of(&[holding("cache/app", app)], |_| false);
    assert_eq!(pairs(&graph.taken(&[root(0, 0), root(1, 1)], 2)), [(11, 100), (21, 100)]);
    assert_eq!(pairs(&graph.taken(&[root(0, 0), root(1, 0)], 1)), [(132, 0)]);
    assert_eq!(pairs(&graph.taken(&[root(2, 0), root(0, OTHERS)], 1)), [(22, 111)], "{graph:?}");
}

#[test]
fn bytes_are_shared_between_repositories_and_manifests_are_not() {
    let one = holding("cache/one", vec![manifest("a", 1, &[], &[("base", 100)])]);
    let two = holding("cache/two", vec![manifest("a", 1, &[], &[("base", 100)])]);
    let graph = Graph::of(&[one, two], |_| false);
    assert_eq!(pairs(&graph.taken(&[root(0, 0), root(1, 1)], 2)), [(0, 101), (0, 101)]);
    assert_eq!(pairs(&graph.taken(&[root(0, 0), root(1, 0)], 1)), [(101, 0)]);
}

#[test]
fn what_is_needed_elsewhere_is_never_freed() {
    let app = holding("cache/app", vec![manifest("a", 1, &[], &[("base", 100), ("a1", 10)])]);
    let graph = Graph::of(&[app], |one| *one == digest("base"));
    assert_eq!(pairs(&graph.taken(&[root(0, 0)], 1)), [(11, 100)]);
}

#[test]
fn a_referrer_belongs_to_its_subject() {
    let mut signature = manifest("signature", 5, &[], &[("payload", 7)]);
    signature.subject = Some(digest("a"));
    let app = holding("cache/app", vec![manifest("a", 1, &[], &[]), signature]);
    assert_eq!(pairs(&Graph::of(&[app], |_| false).taken(&[root(0, 0)], 1)), [(13, 0)]);
}

#[test]
fn thirty_levels_that_name_each_child_twice_take_no_time() {
    let mut manifests = vec![manifest("0", 1, &[], &[("layer", 9)])];
    for level in 1..30 {
        let child = (level - 1).to_string();
        manifests.push(manifest(&level.to_string(), 1, &[&child, &child], &[]));
    }
    let graph = Graph::of(&[holding("cache/app", manifests)], |_| false);
    assert_eq!(pairs(&graph.taken(&[root(29, 0)], 1)), [(39, 0)]);
}

/// Some repositories whose manifests name blobs and each other at random, and an owner for each manifest that is a root.
fn graphs() -> impl Strategy<Value = (Vec<Holding>, Vec<Root>)> {
    let one = (proptest::collection::vec(0_usize..12, 0..5), proptest::collection::vec(0_usize..8, 0..3), 0_u32..6);
    let repository = proptest::collection::vec(one, 0..8);
    proptest::collection::vec(repository, 1..4).prop_map(|repositories| {
        let (mut holdings, mut roots, mut entry) = (Vec::new(), Vec::new(), 0);
        for (number, manifests) in repositories.into_iter().enumerate() {
            let mut made: Vec<ManifestFact> = Vec::new();
            for (place, (blobs, children, owner)) in manifests.into_iter().enumerate() {
                let blobs: BTreeSet<usize> = blobs.into_iter().collect();
                let names: Vec<(String, u64)> =
                    blobs.into_iter().map(|blob| (format!("blob {blob}"), 1 << blob)).collect();
                let blobs: Vec<(&str, u64)> = names.iter().map(|(name, size)| (name.as_str(), *size)).collect();
                let mut one = manifest(&format!("{number} {place}"), 1_u64 << (20 + entry % 20), &[], &blobs);
                one.children = children.iter().filter_map(|child| Some(made.get(*child)?.digest)).collect();
                made.push(one);
                if owner < 4 {
                    roots.push(Root { entry, owner });
                } else {
                    roots.push(Root { entry, owner: OTHERS });
                }
                entry += 1;
            }
            holdings.push(holding(&format!("cache/r{number}"), made));
        }
        (holdings, roots)
    })
}

/// The same by sets, as it is said: what is needed, by whom.
fn by_sets(holdings: &[Holding], roots: &[Root], owner: u32) -> (u64, u64) {
    let manifests: Vec<(usize, &ManifestFact)> = holdings
        .iter()
        .enumerate()
        .flat_map(|(place, one)| one.manifests.iter().map(move |fact| (place, fact)))
        .collect();
    let needs = |entry: Entry| {
        let mut bytes: BTreeMap<Digest, u64> = BTreeMap::new();
        let mut next = vec![manifests[entry as usize]];
        while let Some((place, fact)) = next.pop() {
            bytes.insert(fact.digest, fact.size);
            bytes.extend(fact.blobs.iter().copied());
            let find = |child: &Digest| holdings[place].manifests.iter().find(|one| one.digest == *child);
            next.extend(fact.children.iter().filter_map(find).map(|child| (place, child)));
        }
        bytes
    };
    let (mut mine, mut theirs) = (BTreeMap::new(), BTreeMap::new());
    for root in roots {
        if root.owner == owner { mine.extend(needs(root.entry)) } else { theirs.extend(needs(root.entry)) }
    }
    let alone = mine.iter().filter(|(digest, _)| !theirs.contains_key(*digest)).map(|(_, size)| size).sum();
    (alone, mine.values().sum())
}

proptest! {
    #[test]
    fn bytes_are_those_that_sets_give((holdings, roots) in graphs()) {
        let taken = Graph::of(&holdings, |_| false).taken(&roots, 4);
        for (owner, taken) in (0..).zip(taken) {
            prop_assert_eq!((taken.exclusive, taken.total), by_sets(&holdings, &roots, owner));
        }
    }
}
