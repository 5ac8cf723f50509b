//! Indexes, referrers and untagged manifests.

use super::*;

fn untagged_policy() -> String {
    policy("select: [untagged, \"{branch|slug}\"]\nkeep: [{ pushed_within: 7d }]")
}

/// The untagged manifests that go, by the names that they were made with.
fn untagged_going(scene: &Scene, names: &[&str]) -> Vec<String> {
    let plan = scene.plan();
    let own = plan.repositories[0].untagged.iter().filter(|(_, verdict)| verdict.goes().is_some()).map(|(at, _)| *at);
    let all: Vec<usize> = own.chain(plan.repositories[0].along.iter().map(|(at, _)| *at)).collect();
    let manifests = &scene.places[0].holding.manifests;
    let name = |at: usize| names.iter().find(|name| digest(name) == manifests[at].digest).unwrap();
    all.into_iter().map(|at| name(at).to_string()).collect()
}

#[test]
fn an_index_keeps_its_descendants_three_deep() {
    let mut scene = Scene::new(&untagged_policy(), "cache/app");
    scene.tag("main", "top", 1);
    scene.tag("old", "old top", 30);
    let missing = digest("not here");
    for (parent, child) in [("top", "middle"), ("middle", "leaf"), ("old top", "old leaf"), ("old top", "leaf")] {
        let child = scene.manifest(child).digest;
        scene.manifest(parent).children.extend([child, missing]);
    }
    scene.manifest("alone");
    assert_eq!(scene.going(), ["old"]);
    assert_eq!(untagged_going(&scene, &["alone", "old leaf", "leaf", "middle"]), ["alone", "old leaf"]);
}

#[test]
fn an_untagged_index_goes_before_its_children_and_nothing_that_another_needs() {
    let mut scene = Scene::new(&untagged_policy(), "cache/app");
    scene.tag("main", "kept", 1);
    let (shared, own) = (scene.manifest("shared").digest, scene.manifest("own").digest);
    scene.manifest("loose").children.extend([shared, own]);
    scene.manifest("kept").children.push(shared);
    assert_eq!(untagged_going(&scene, &["loose", "shared", "own"]), ["loose", "own"]);
    scene.manifest("loose").pushed_at = Some(ago(1));
    assert_eq!(untagged_going(&scene, &[]), [""; 0]);
}

#[test]
fn a_manifest_without_a_tag_stays_unless_a_policy_selects_untagged() {
    let mut scene = Scene::new(&policy("select: [all]\nkeep: [{ pushed_within: 7d }]"), "cache/app");
    scene.tag("main", "kept", 1);
    scene.manifest("loose");
    assert_eq!(scene.plan().repositories[0].others, [1]);
    assert_eq!(untagged_going(&scene, &[]), [""; 0]);
}

#[test]
fn a_subject_keeps_what_refers_to_it_and_takes_it_along() {
    let mut scene = Scene::new(&policy("select: [all]\nkeep: [{ pushed_within: 7d }]"), "cache/app");
    scene.tag("main", "kept", 1);
    scene.tag("old", "old", 30);
    let signature = |of: &str, ending: &str| format!("sha256-{}{ending}", digest(of).hex());
    scene.tag(&signature("kept", ".sig"), "signature of kept", 90);
    scene.tag(&signature("old", ".sig"), "signature of old", 90);
    scene.tag(&signature("signature of old", ".att"), "attestation of the signature", 90);
    scene.tag(&signature("nowhere", ".sig"), "orphan", 90);
    let sbom = digest("old");
    scene.manifest("sbom").subject = Some(sbom);
    let mut wanted = vec!["old".to_owned(), signature("old", ".sig"), signature("signature of old", ".att")];
    wanted.sort();
    assert_eq!(scene.going(), wanted);
    assert_eq!(untagged_going(&scene, &["sbom"]), ["sbom"]);
    assert_eq!(scene.said(&signature("kept", ".sig")), "it stays: what it refers to stays");
    assert!(scene.said(&signature("nowhere", ".sig")).contains("a policy that selects untagged would take it"));
    assert!(scene.said(&signature("old", ".sig")).ends_with("along with what it belongs to"));
    assert_eq!(scene.plan().policies[0].deletes, 3, "what goes along counts");
}

#[test]
fn referrers_tags_are_neither_selected_nor_counted() {
    let mut scene = Scene::new(&policy("select: [all]\nkeep: [{ newest: 1 }]"), "cache/app");
    scene.tag("main", "kept", 5);
    scene.tag(&format!("sha256-{}.sig", digest("kept").hex()), "signature", 1);
    assert_eq!(scene.going(), [""; 0], "the signature takes no place among the newest");
}

#[test]
fn an_orphaned_referrers_tag_goes_where_untagged_is_selected() {
    let mut scene = Scene::new(&untagged_policy(), "cache/app");
    let orphan = format!("sha256-{}.sig", digest("nowhere").hex());
    scene.tag(&orphan, "orphan", 90);
    assert_eq!(scene.going(), [orphan]);
    scene.holding().tags[0].pushed_at = Some(ago(1));
    assert_eq!(scene.going(), [""; 0], "its subject may still come");
}

#[test]
fn a_protected_signature_keeps_what_it_means() {
    let yaml = untagged_policy() + "  protect: [\"**:sha256-*\"]\n";
    let mut scene = Scene::new(&yaml, "cache/app");
    scene.tag("old", "old", 30);
    let tag = format!("sha256-{}.sig", digest("old").hex());
    scene.tag(&tag, "signature", 90);
    assert_eq!(scene.going(), ["old"]);
    assert!(scene.said(&tag).contains("of protect names it"));
}

#[test]
fn a_tagged_referrer_keeps_its_untagged_subject() {
    let mut scene = Scene::new(&untagged_policy(), "cache/app");
    let subject = scene.manifest("subject").digest;
    scene.tag("signature", "signature", 1);
    scene.manifest("signature").subject = Some(subject);
    assert_eq!(untagged_going(&scene, &[]), [""; 0]);
}
