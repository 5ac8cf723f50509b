//! What holds whatever is there.

use proptest::prelude::*;

use super::*;

const KEEPS: [&str; 6] = [
    "{ newest: 2 }",
    "{ pushed_within: 20d }",
    "{ pulled_within: 20d }",
    "{ newest: 3, pushed_within: 40d }",
    "{ tags: [\"b*\"] }",
    "{ branch_alive: { forge: github, repository: \"acme/{repo}\", then: 5d } }",
];

fn scenes() -> impl Strategy<Value = Scene> {
    let tag = ("[abc]-[0-9a-f]{7}|[abc]|v[0-9]\\.[0-9]\\.0", 0_usize..10, proptest::option::of(0_u64..60));
    let child = (0_usize..10, 0_usize..10);
    let keeps = proptest::collection::vec(0_usize..6, 1..3);
    (proptest::collection::vec(tag, 0..25), proptest::collection::vec(child, 0..8), keeps).prop_map(
        |(tags, children, keeps)| {
            let items: Vec<&str> = keeps.iter().map(|keep| KEEPS[*keep]).collect();
            let select = "select: [\"{branch|slug}-{sha:7}\", \"{branch|slug}\", semver, untagged]";
            let mut scene = Scene::new(&policy(&format!("{select}\nkeep: [{}]", items.join(", "))), "cache/app");
            let mut known = std::collections::BTreeSet::new();
            for (tag, means, days) in tags.into_iter().filter(|(tag, ..)| known.insert(tag.clone())) {
                scene.tag(&tag, &format!("m{means}"), 0).pushed_at = days.map(ago);
            }
            for (parent, child) in children.into_iter().filter(|(parent, child)| parent > child) {
                let child = scene.manifest(&format!("m{child}")).digest;
                scene.manifest(&format!("m{parent}")).children.push(child);
            }
            scene.branches(&["a"], &[("b", 3)]);
            scene
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_goes_is_selected_and_nothing_that_stays_needs_it(scene in scenes()) {
        let plan = scene.plan();
        let Some(decided) = plan.repositories.first() else { return Ok(()) };
        let holding = &scene.places[0].holding;
        let mut needed: Vec<Digest> = Vec::new();
        for (fact, verdict) in holding.tags.iter().zip(&decided.tags) {
            match verdict {
                Verdict::Goes(_) => {
                    let asks = |text: &str| scene.retention.policies[0].keep.iter().any(|item| item.to_string() == text);
                    let name = fact.tag.as_str();
                    prop_assert!(fact.pushed_at.is_some() || !asks("newest: 2"), "{name} came at an unknown time");
                    prop_assert!(!name.starts_with('a') || !asks("branch_alive"), "the branch of {name} lives");
                    prop_assert!(!name.starts_with('b') || !asks("tags: [b*]"), "{name} is called so");
                    prop_assert!(fact.pushed_at.is_some_and(|at| at <= ago(20)) || !asks("pushed_within: 20d"));
                }
                Verdict::Waits { .. } | Verdict::Stays(_) => needed.push(fact.digest),
            }
        }
        while let Some(digest) = needed.pop() {
            let Some(at) = holding.manifests.iter().position(|one| one.digest == digest) else { continue };
            prop_assert!(!decided.untagged.iter().any(|(place, verdict)| *place == at && verdict.goes().is_some()));
            prop_assert!(!decided.along.iter().any(|(place, _)| *place == at));
            needed.extend(&holding.manifests[at].children);
        }
    }

    #[test]
    fn a_further_item_never_lets_more_go(scene in scenes()) {
        let going = scene.going();
        let mut more = scene;
        let items = more.retention.policies[0].keep.clone();
        more.retention.policies[0].keep.extend(retention(&policy("select: [all]\nkeep: [{ newest: 1 }]")).policies[0].keep.clone());
        prop_assert!(more.going().iter().all(|tag| going.contains(tag)));
        more.retention.policies[0].keep = items;
        more.protections.tags.extend(going.iter().take(1).map(|tag| (hosted("cache/app"), tag.parse().unwrap())));
        let with_protection = more.going();
        prop_assert!(with_protection.iter().all(|tag| going.contains(tag) && going.first() != Some(tag)));
    }

    #[test]
    fn the_order_in_which_things_are_listed_does_not_matter(scene in scenes()) {
        let going = scene.going();
        let mut turned = scene;
        turned.holding().tags.reverse();
        turned.holding().manifests.reverse();
        prop_assert_eq!(turned.going(), going);
    }
}
