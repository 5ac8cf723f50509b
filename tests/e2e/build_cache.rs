//! Build caches: exported to larder by one runner, imported by another whose store is empty. What shows that a cache was
//! taken is that the step with something new in each run of it did not run again.

use std::path::PathBuf;

use http::Method;
use serde_json::json;

use crate::support::buildkitd;
use crate::support::buildkitd::Buildkitd;
use crate::support::buildkitd::Step;
use crate::support::client;
use crate::support::content;
use crate::support::images;
use crate::support::images::MANIFEST;
use crate::support::larder;
use crate::support::larder::Larder;
use crate::support::parts;
use crate::support::parts::BUILDX;
use crate::support::parts::DOCKER;
use crate::support::parts::Outcome;
use crate::support::parts::Scratch;

/// The step that nobody wants to run twice.
const COSTLY: &str = "RUN echo running; cat /proc/sys/kernel/random/uuid > /costly";

/// A project that is built on an image of larder's.
#[derive(Debug)]
struct Project {
    larder: Larder,
    context: PathBuf,
    scratch: Scratch,
}

impl Project {
    fn new() -> Self {
        let scratch = Scratch::new();
        let larder = Larder::hosting(&scratch, &keys());
        let base = images::busybox("base");
        content::push(&larder.url(), "cache/base", "1", &base);
        let from = format!("FROM {}/cache/base:1@{}", larder.address(), base.digest());
        let dockerfile = format!("{from}\n{COSTLY}\nCOPY file /file\n");
        let file = scratch.file("context/Dockerfile", &dockerfile);
        let context = file.parent().expect("a file lies in a folder").to_owned();
        let project = Self { larder, context, scratch };
        project.change("first");
        project
    }

    /// A change that leaves the costly step as it is.
    fn change(&self, content: &str) {
        self.scratch.file("context/file", content);
    }

    /// A runner that has nothing yet.
    fn runner(&self, name: &str) -> Buildkitd {
        Buildkitd::start(&self.scratch, name, &self.larder.client_config("buildkit", &self.larder.url()))
    }

    /// `HOST:PORT/cache/NAME:TAG`.
    fn at(&self, name: &str) -> String {
        format!("{}/cache/{name}", self.larder.address())
    }

    fn export(&self, runner: &Buildkitd, name: &str, more: &str) -> Outcome {
        let to = format!("type=registry,ref={},mode=max{more}", self.at(name));
        runner.build(&self.context, &["--export-cache", &to])
    }

    fn import(&self, runner: &Buildkitd, name: &str) -> Outcome {
        runner.build(&self.context, &["--import-cache", &format!("type=registry,ref={}", self.at(name))])
    }
}

/// The fallback is larder's alone, and so is the collection of what an export replaced.
fn keys() -> serde_json::Value {
    if larder::is_peer() {
        json!({})
    } else {
        json!({
            "build_caches": [{ "match": "cache/**", "fallback": ["main"], "replaced_grace": "0s" }],
            "gc": { "lease": "0s", "every": "0s" },
        })
    }
}

#[track_caller]
fn assert_step(built: Outcome, step: Step) {
    let progress = built.expect("the build").err;
    assert_eq!(Step::of(&progress, COSTLY), step, "{progress}");
}

#[test]
fn an_empty_runner_takes_the_costly_step_from_a_cache_of_either_form() {
    if !buildkitd::is_here() {
        return;
    }
    let project = Project::new();
    let first = project.runner("first");
    for (number, form) in ["true", "false"].into_iter().enumerate() {
        let name = format!("{form}:main");
        let exported = project.export(&first, &name, &format!(",image-manifest={form}"));
        assert_step(exported, if number == 0 { Step::Ran } else { Step::Cached });
        content::assert_whole(&project.larder.url(), &format!("cache/{form}"), "main");
        let second = project.runner(&format!("second-{form}"));
        let unchanged = project.import(&second, &name).expect("the build").err;
        assert_eq!(unchanged.matches(" CACHED\n").count(), 2, "neither step ran: {unchanged}");
        second.forget();
        project.change(form);
        assert_step(project.import(&second, &name), Step::Cached);
        project.change("first");
    }
}

#[test]
fn what_an_export_replaced_is_collected_and_the_newer_cache_is_whole() {
    if !buildkitd::is_here() || larder::is_peer() {
        return;
    }
    let project = Project::new();
    let url = project.larder.url();
    let first = project.runner("first");
    assert_step(project.export(&first, "app:main", ""), Step::Ran);
    let replaced = content::assert_whole(&url, "cache/app", "main");
    project.change("second");
    assert_step(project.export(&first, "app:main", ""), Step::Cached);
    assert!(project.larder.asked(&["gc"]).contains("1 more wait"), "its time begins when it is found");
    let freed = project.larder.asked(&["gc"]);
    assert!(freed.contains("freed: 1 manifests"), "{freed}");
    assert_eq!(content::manifest(&url, "cache/app", &replaced).status, 404);
    content::assert_whole(&url, "cache/app", "main");
    assert_step(project.import(&project.runner("second"), "app:main"), Step::Cached);
}

#[test]
fn docker_buildx_exports_pushes_and_imports() {
    if !buildkitd::is_here() || !parts::are_here(&[DOCKER, BUILDX]) {
        return;
    }
    let project = Project::new();
    let folder = project.scratch.folder("docker/cli-plugins");
    std::os::unix::fs::symlink(BUILDX.path(), folder.join("docker-buildx")).expect("giving docker its plugin");
    let buildx = |arguments: &[&str]| {
        let mut command = DOCKER.command();
        command.env("DOCKER_CONFIG", project.scratch.path().join("docker")).arg("buildx").args(arguments);
        command
    };
    let build = |name: &str, cache: &str| {
        let runner = project.runner(name);
        parts::run(&mut buildx(&["create", "--name", name, "--driver", "remote", runner.address()]))
            .expect("docker buildx create");
        let (image, cache) = (project.at("image:main"), project.at(cache));
        let to = format!("type=registry,ref={cache},mode=max,ignore-error=true");
        let from = format!("type=registry,ref={cache}");
        let mut command = buildx(&["build", "--builder", name, "--progress", "plain", "--push", "--tag", &image]);
        parts::run(command.args(["--cache-to", &to, "--cache-from", &from]).arg(&project.context))
    };
    assert_step(build("first", "buildx:main"), Step::Ran);
    let digest = content::assert_whole(&project.larder.url(), "cache/image", "main");
    project.change("second");
    assert_step(build("second", "buildx:main"), Step::Cached);
    let next = content::assert_whole(&project.larder.url(), "cache/image", "main");
    assert_ne!(next, digest, "the second push moved the tag");
}

#[test]
fn an_image_with_an_inline_cache_is_a_cache() {
    if !buildkitd::is_here() {
        return;
    }
    let project = Project::new();
    let output = format!("type=image,name={},push=true", project.at("inline:main"));
    let pushed =
        project.runner("first").build(&project.context, &["--output", &output, "--export-cache", "type=inline"]);
    assert_step(pushed, Step::Ran);
    content::assert_whole(&project.larder.url(), "cache/inline", "main");
    project.change("second");
    assert_step(project.import(&project.runner("second"), "inline:main"), Step::Cached);
}

#[test]
fn a_build_whose_cache_is_not_there_goes_on() {
    if !buildkitd::is_here() {
        return;
    }
    let project = Project::new();
    assert_step(project.import(&project.runner("first"), "none:other"), Step::Ran);
}

#[test]
fn a_build_goes_on_when_larder_is_gone_and_errors_of_the_cache_are_ignored() {
    if !buildkitd::is_here() {
        return;
    }
    let mut project = Project::new();
    let runner = project.runner("first");
    assert_step(project.export(&runner, "app:main", ""), Step::Ran);
    project.larder.stop();
    // The base is the runner's by now, and the costly step with it.
    project.change("second");
    let cache = format!("type=registry,ref={}", project.at("app:main"));
    let to = format!("{cache},mode=max,ignore-error=true");
    let built = runner.build(&project.context, &["--import-cache", &cache, "--export-cache", &to]);
    assert_step(built, Step::Cached);
    let strict = runner.build(&project.context, &["--export-cache", &format!("{cache},mode=max")]);
    assert!(!strict.succeeded, "without ignore-error an export that fails is the build's failure");
}

#[test]
fn two_runners_export_to_one_tag_at_once_and_what_they_leave_is_whole() {
    if !buildkitd::is_here() {
        return;
    }
    let project = Project::new();
    let runners = [project.runner("first"), project.runner("second")];
    for round in ["1", "2", "3"] {
        // Each has a costly step of its own, so they do not export the same.
        runners.iter().for_each(Buildkitd::forget);
        let export = |runner| project.export(runner, "race:main", "");
        let outcomes = std::thread::scope(|scope| {
            let [first, second] = runners.each_ref().map(|runner| scope.spawn(move || export(runner)));
            [first, second].map(|export| export.join().expect("an export does not panic"))
        });
        for exported in outcomes {
            assert_step(exported, Step::Ran);
        }
        content::assert_whole(&project.larder.url(), "cache/race", "main");
        project.change(round);
        assert_step(project.import(&project.runner(&format!("third-{round}")), "race:main"), Step::Cached);
    }
}

#[test]
fn the_first_build_of_a_branch_takes_the_cache_of_main() {
    if !buildkitd::is_here() || larder::is_peer() {
        return;
    }
    let project = Project::new();
    let url = project.larder.url();
    let first = project.runner("first");
    project.export(&first, "app:main", "").expect("exporting main's cache");
    let main = content::assert_whole(&url, "cache/app", "main");

    project.change("second");
    assert_step(project.import(&project.runner("branch"), "app:feature-x"), Step::Cached);
    let served = content::manifest(&url, "cache/app", "feature-x");
    assert_eq!(served.header("larder-served-tag"), "main", "{served:?}");
    assert_eq!(served.header("docker-content-digest"), main, "{served:?}");
    let tags = client::get(&format!("{url}/v2/cache/app/tags/list")).expect("asking for the tags");
    assert!(!String::from_utf8_lossy(&tags.body).contains("feature-x"), "a fallback makes no tag: {tags:?}");

    // The same cache for a branch: what decides whether it is pushed is the answer to the exporter's HEAD.
    project.change("first");
    project.export(&first, "app:feature-y", "").expect("exporting the branch's cache");
    let own = content::manifest(&url, "cache/app", "feature-y");
    assert_eq!((own.status.as_u16(), own.header("larder-served-tag")), (200, ""), "{own:?}");
}

#[test]
fn an_image_that_is_no_cache_is_not_given_for_the_tag_of_a_branch() {
    if larder::is_peer() {
        return;
    }
    let scratch = Scratch::new();
    let larder = Larder::hosting(&scratch, &keys());
    content::push(&larder.url(), "cache/plain", "main", &images::busybox("plain"));
    let url = format!("{}/v2/cache/plain/manifests/feature", larder.url());
    assert_eq!(client::get(&url).expect("asking for a manifest").status, 404);
    let head = client::send(Method::HEAD, &url, MANIFEST, bytes::Bytes::new()).expect("asking for a manifest");
    assert_eq!(head.status, 404);
}
