//! crane, which knows no mirrors: the upstream's host is the first segment of the name.

use crate::support::images;
use crate::support::larder;
use crate::support::parts;
use crate::support::parts::BUSYBOX;
use crate::support::parts::CRANE;
use crate::support::parts::Outcome;
use crate::support::parts::REGISTRY;
use crate::support::stage::Stage;

fn crane(arguments: &[&str]) -> Outcome {
    parts::run(CRANE.command().arg(arguments[0]).arg("--insecure").args(&arguments[1..]))
}

#[test]
fn crane_finds_every_byte_right_by_a_prefixed_name_and_again_when_the_upstream_is_gone() {
    if !parts::are_here(&[CRANE, REGISTRY, BUSYBOX]) {
        return;
    }
    let mut stage = Stage::new();
    let (docker_io, other) = (stage.larder.prefix("docker.io"), stage.larder.prefix("other.test"));
    let (base, tool, multi) =
        (format!("{docker_io}/library/base:1"), format!("{other}/team/tool:2"), format!("{other}/team/multi:3"));
    let assert_right = || {
        assert_eq!(crane(&["digest", &base]).expect("crane digest").out.trim(), stage.base.digest());
        let manifest = crane(&["manifest", &multi]).expect("crane manifest").out;
        assert_eq!(images::digest(manifest.as_bytes()), stage.multi.digest(), "the index's bytes are the upstream's");
        for image in [&base, &tool, &multi] {
            crane(&["validate", "--remote", image]).expect("crane validate");
        }
    };
    assert_right();
    stage.upstream.stop();
    assert_right();
}

#[test]
fn crane_lists_the_tags_of_a_proxied_repository_in_order() {
    if !parts::are_here(&[CRANE, REGISTRY, BUSYBOX]) || larder::is_peer() {
        return;
    }
    let stage = Stage::new();
    stage.upstream.push("team/tool", "3", &stage.base);
    let listed = crane(&["ls", &format!("{}/other.test/team/tool", stage.larder.address())]).expect("crane ls").out;
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["2", "3"]);
}
