//! BuildKit on its own: buildkitd with a mirror, driven by buildctl.

use crate::support::buildkitd;
use crate::support::buildkitd::Buildkitd;
use crate::support::stage::Stage;

#[test]
fn buildkit_builds_on_bases_that_come_through_larder_and_again_when_the_upstream_is_gone() {
    if !buildkitd::is_here() {
        return;
    }
    let mut stage = Stage::new();
    let registries = stage.larder.client_config("buildkit", &stage.larder.url());
    let buildkitd = Buildkitd::start(&stage.scratch, "buildkitd", &registries);
    let dockerfile = "FROM docker.io/library/base:1 AS first\n\
                      RUN [\"/bin/sh\", \"-c\", \"echo hi > /y\"]\n\
                      FROM other.test/team/tool:2\n\
                      COPY --from=first /y /y\n";
    stage.scratch.file("context/Dockerfile", dockerfile);
    let context = stage.scratch.path().join("context");
    let assert_builds = || {
        let progress = buildkitd.build(&context, &["--no-cache"]).expect("buildctl build").err;
        for image in [&stage.base, &stage.tool] {
            let digest = image.digest();
            assert!(
                progress.contains(&format!("@{digest}")),
                "BuildKit resolved something else than {digest}: {progress}"
            );
        }
    };
    assert_builds();
    stage.upstream.stop();
    buildkitd.forget();
    assert_builds();
}
