//! What policies say, one by one.

use super::*;

const BY_BRANCH: &str = "select: [\"{branch|slug}-{sha:7}\", \"{branch|slug}\"]\nexcept: [\"v*\", latest, main]\n";

#[test]
fn three_newest_per_branch_stay() {
    let mut scene = Scene::new(&policy(&format!("{BY_BRANCH}keep: [{{ newest: 3 }}]")), "cache/app");
    for n in 0..5 {
        scene.tag(&format!("main-000000{n}"), &format!("m{n}"), n);
        scene.tag(&format!("feature-a-000000{n}"), &format!("f{n}"), 10 + n);
    }
    for tag in ["v1", "latest", "main"] {
        scene.tag(tag, tag, 400);
    }
    assert_eq!(scene.going(), ["feature-a-0000003", "feature-a-0000004", "main-0000003", "main-0000004"]);
    assert_eq!(
        scene.said("main-0000001"),
        "it stays: `newest: 3` of the policy p keeps it: it is the 2nd newest of main"
    );
    assert_eq!(scene.said("v1"), "it stays: no policy selects it");
    assert_eq!(
        scene.said("main-0000004"),
        "it goes with the next run that deletes: the policy p selects it and nothing keeps it"
    );
}

#[test]
fn images_of_a_pull_request_go_two_days_after_its_end() {
    let keep = "select: [\"pr-{number}\", \"pr-{number}-{sha:7}\"]\n\
                keep: [{ pr_open: { forge: github, repository: \"acme/{repo}\", then: 2d } }]";
    let mut scene = Scene::new(&policy(keep), "cache/app");
    for (tag, days) in [("pr-1", 50), ("pr-2", 50), ("pr-3", 50), ("pr-3-0123abc", 50), ("pr-4", 50), ("pr-9", 50)] {
        scene.tag(tag, tag, days);
    }
    scene.tag("pr-5", "pushed after the end", 1);
    let mut book = PullBook::new(NOW);
    book.add_open(2, "fix/a", "0123");
    book.add_closed(3, "fix/b", ago(3));
    book.add_closed(4, "fix/c", ago(1));
    book.add_closed(5, "fix/d", ago(10));
    scene.pulls(book);
    assert_eq!(scene.going(), ["pr-1", "pr-3", "pr-3-0123abc"]);
    assert!(scene.said("pr-2").ends_with("the pull request 2 is open"), "{}", scene.said("pr-2"));
    assert!(scene.said("pr-9").ends_with("its pull request is not known"), "{}", scene.said("pr-9"));
    assert!(scene.said("pr-4").contains("its pull request was closed, and it stays until"));
}

#[test]
fn what_is_in_use_stays() {
    let mut scene = Scene::new(&policy("select: [all]\nkeep: [{ newest: 1 }]"), "cache/app");
    for (tag, days) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        scene.tag(tag, tag, days);
    }
    let child = scene.manifest("platform of c").digest;
    scene.manifest("c").children.push(child);
    scene.protections.tags.insert((hosted("cache/app"), "b".parse().unwrap()));
    scene.protections.digests.insert(child);
    assert_eq!(scene.going(), ["d"]);
    assert!(scene.said("c").contains("a list of what is in use"), "{}", scene.said("c"));
}

#[test]
fn releases_stay_for_two_years_beside_branches_in_one_repository() {
    let yaml = "
retention:
  policies:
  - { name: branches, repositories: [\"cache/{repo}\"], select: [\"{branch|slug}\"], except: [\"v*\"], keep: [{ pushed_within: 7d }], grace: 0s }
  - { name: releases, repositories: [\"cache/{repo}\"], select: [semver], keep: [{ pushed_within: 730d }, { semver: { newest: 2 } }], grace: 0s }
";
    let mut scene = Scene::new(yaml, "cache/app");
    for (tag, days) in
        [("v1.0.0", 900), ("v1.1.0", 800), ("v2.0.0", 700), ("v3.0.0", 600), ("v1", 900), ("main", 3), ("old", 8)]
    {
        scene.tag(tag, tag, days);
    }
    assert_eq!(scene.going(), ["old", "v1.0.0", "v1.1.0"]);
}

#[test]
fn build_caches_that_nobody_imported_go() {
    let mut scene = Scene::new(&policy("select: [buildcache]\nkeep: [{ pulled_within: 14d }]"), "cache/app");
    scene.tag("unused", "c1", 60).pulled = Pulled::At(ago(20));
    scene.tag("used", "c2", 60).pulled = Pulled::At(ago(2));
    scene.tag("by-digest", "c3", 60);
    scene.manifest("c3").pulled = Pulled::At(ago(2));
    scene.tag("never", "c4", 60);
    scene.tag("unknown", "c5", 60).pulled = Pulled::Unknown;
    scene.tag("just-pushed", "c6", 3);
    scene.tag("observed-lately", "c7", 60).pulled = Pulled::NotSince(ago(5));
    scene.tag("image", "i", 60);
    for name in ["c1", "c2", "c3", "c4", "c5", "c6", "c7"] {
        scene.manifest(name).class = Some(Class::BuildCache);
    }
    assert_eq!(scene.going(), ["never", "unused"]);
    assert!(scene.said("unknown").ends_with("whether it was pulled since is not known"));
    assert!(scene.said("observed-lately").ends_with("whether it was pulled since is not known"));
}

const ALIVE: &str = "keep: [{ branch_alive: { forge: github, repository: \"acme/{repo}\", then: 24h } }]";

#[test]
fn a_branch_is_dead_only_when_the_list_of_its_repository_lacks_it() {
    let mut scene = Scene::new(&policy(&format!("{BY_BRANCH}{ALIVE}")), "cache/app");
    for tag in ["feature-a-0123abc", "feature-b-0123abc", "feature-c-0123abc", "gone-0123abc", "twice-0123abc"] {
        scene.tag(tag, tag, 80);
    }
    scene.tag("pushed-after-0123abc", "pushed-after-0123abc", 0);
    assert_eq!(scene.going(), [""; 0], "nobody was asked");
    let dead = [("feature/b", 10), ("feature/c", 0), ("pushed/after", 30), ("twice", 40)];
    scene.branches(&["feature/a", "TWICE"], &dead);
    assert_eq!(scene.going(), ["feature-b-0123abc", "gone-0123abc"]);
    assert!(scene.said("feature-a-0123abc").ends_with("the branch feature/a lives"));
    assert!(scene.said("feature-c-0123abc").contains("its branch ended, and it stays until"));
    assert!(scene.said("twice-0123abc").ends_with("the branch TWICE lives"));
}

#[test]
fn what_came_after_the_list_of_branches_is_not_known() {
    let mut scene = Scene::new(&policy(&format!("{BY_BRANCH}{}", ALIVE.replace("24h", "0s"))), "cache/app");
    scene.tag("new-0123abc", "a", 1);
    scene.tag("old-0123abc", "b", 3);
    scene.tag("some-0123abc", "c", 0).pushed_at = None;
    let of = ForgeRepository { forge: "github".to_owned(), repository: "acme/app".to_owned() };
    let book = BranchBook::new(["main"], [], ago(50), ago(2));
    scene.knowledge.branches.insert(BranchSource::Forge(of), Ok(book));
    assert_eq!(scene.going(), ["old-0123abc"]);
    assert!(scene.said("new-0123abc").ends_with("it may have come after the forge or the file was asked"));
    let known = [("some-0123abc".to_owned(), (digest("c"), ago(3)))].into();
    scene.first.insert(hosted("cache/app"), known);
    assert_eq!(scene.going(), ["old-0123abc", "some-0123abc"], "it was in a plan before the list");
}

#[test]
fn a_list_that_failed_keeps_everything_and_says_why() {
    let mut scene = Scene::new(&policy(&format!("{BY_BRANCH}{ALIVE}")), "cache/app");
    scene.tag("gone-0123abc", "a", 80);
    let of = ForgeRepository { forge: "github".to_owned(), repository: "acme/app".to_owned() };
    scene.knowledge.branches.insert(BranchSource::Forge(of), Err("page 2 failed".into()));
    assert_eq!(scene.going(), [""; 0]);
    assert!(scene.said("gone-0123abc").ends_with("page 2 failed"));
    assert!(scene.plan().repositories[0].tags[0].is_unknown());
}

#[test]
fn a_tag_that_is_written_like_a_branch_belongs_to_it() {
    let mut scene = Scene::new(
        &policy(&format!(
            "{BY_BRANCH}count_by: branch\nkeep: [{{ newest: 1 }}, {{ branch_alive: {{ forge: github, repository: \"acme/{{repo}}\", then: 0s }} }}]"
        )),
        "cache/app",
    );
    scene.tag("fix-1234567", "a", 30);
    scene.tag("fix-89abcde", "b", 20);
    scene.branches(&[], &[("fix", 40), ("fix-1234567", 40)]);
    assert_eq!(scene.going(), [""; 0], "they are the newest of two branches");
    assert!(scene.said("fix-1234567").ends_with("newest of fix-1234567"), "{}", scene.said("fix-1234567"));
    assert!(scene.said("fix-89abcde").ends_with("newest of fix"), "{}", scene.said("fix-89abcde"));
}

#[test]
fn items_are_alternatives_and_keys_of_one_are_not() {
    let keep = "select: [all]\nkeep: [{ newest: 2, pushed_within: 7d }, { tags: [\"release-*\"] }]";
    let mut scene = Scene::new(&policy(keep), "cache/app");
    for (tag, days) in [("a", 1), ("b", 9), ("c", 10), ("release-1", 50)] {
        scene.tag(tag, tag, days);
    }
    assert_eq!(scene.going(), ["b", "c"]);
    assert!(scene.said("a").contains("it is the newest of its repository, and it was pushed at"));
}

#[test]
fn what_any_policy_that_selects_it_keeps_stays() {
    let yaml = "
retention:
  policies:
  - { name: all, repositories: [\"cache/**\"], select: [all], keep: [{ newest: 1 }], grace: 0s }
  - { name: mine, repositories: [\"cache/app\"], select: [\"mine-{n}\"], keep: [{ pushed_within: 30d }], grace: 0s }
";
    let mut scene = Scene::new(yaml, "cache/app");
    for (tag, days) in [("newest", 1), ("mine-1", 20), ("mine-2", 40), ("other", 20)] {
        scene.tag(tag, tag, days);
    }
    assert_eq!(scene.going(), ["mine-2", "other"]);
    assert!(scene.said("mine-1").contains("of the policy mine keeps it"));
}

#[test]
fn a_push_time_that_is_not_known_keeps() {
    let mut scene = Scene::new(&policy("select: [all]\nkeep: [{ newest: 1 }, { pushed_within: 1d }]"), "cache/app");
    scene.tag("unknown", "a", 0).pushed_at = None;
    scene.tag("newest", "b", 10);
    scene.tag("old", "c", 20);
    assert_eq!(scene.going(), ["old"]);
    assert!(scene.said("unknown").ends_with("when it was pushed is not known"));
}

#[test]
fn protection_beats_every_policy() {
    let yaml = policy("select: [all]\nkeep: [{ newest: 1 }]") + "  protect: [\"**:latest\", \"cache/other:*\"]\n";
    let mut scene = Scene::new(&yaml, "cache/app");
    for (tag, days) in [("a", 1), ("latest", 50), ("v1", 50), ("b", 50)] {
        scene.tag(tag, tag, days);
    }
    scene.places[0].fixed = ["v*".parse().unwrap()].into();
    assert_eq!(scene.going(), ["b"]);
    assert_eq!(scene.said("latest"), "it stays: `**:latest` of protect names it");
    assert!(scene.said("v1").contains("immutable_tags"));
    assert_eq!(scene.plan().protected, [true, false], "the second pattern named nothing");
}

#[test]
fn the_grace_begins_when_a_tag_is_first_in_the_plan_and_anew_when_it_moves() {
    let yaml = policy("select: [all]\nkeep: [{ newest: 1 }]").replace("grace: 0s", "grace: 24h");
    let mut scene = Scene::new(&yaml, "cache/app");
    scene.tag("new", "a", 1);
    scene.tag("old", "b", 2);
    let plan = scene.plan();
    assert_eq!(scene.going(), [""; 0]);
    assert_eq!(plan.repositories[0].first["old"], (digest("b"), NOW));
    scene.first.insert(hosted("cache/app"), plan.repositories[0].first.clone());
    scene.now = NOW.after(Duration::from_hours(23));
    assert_eq!(scene.going(), [""; 0]);
    scene.now = NOW.after(Duration::from_hours(24));
    assert_eq!(scene.going(), ["old"]);
    scene.holding().tags[1].pushed_at = Some(NOW.after(Duration::from_hours(1)));
    assert_eq!(scene.going(), [""; 0], "a push of the same begins it anew");
    scene.holding().tags[1].pushed_at = Some(ago(2));
    let moved = scene.manifest("c").digest;
    scene.holding().tags[1].digest = moved;
    assert_eq!(scene.going(), [""; 0], "what it means now was never in a plan");
    let again = scene.plan();
    assert!(!again.repositories[0].first.contains_key("new"), "what is kept is forgotten");
}

#[test]
fn a_policy_lets_go_no_more_than_it_says() {
    let mut scene =
        Scene::new(&policy("select: [all]\nkeep: [{ newest: 1 }]\nat_most: { deletes: 2, share: 60% }"), "cache/app");
    for (tag, days) in [("a", 1), ("b", 2), ("c", 3)] {
        scene.tag(tag, tag, days);
    }
    let exceeds = |scene: &Scene| scene.plan().policies[0].exceeds(&scene.retention.policies[0]);
    assert!(exceeds(&scene), "two of three are more than 60%");
    scene.tag("d", "a", 3);
    assert!(!exceeds(&scene), "two of four are not");
    scene.tag("e", "e", 5);
    assert!(exceeds(&scene), "three are more than two");
}
