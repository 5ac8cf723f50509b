//! What the configuration says of retention, in sentences; and which of its policies and patterns can name nothing.

use crate::config::Config;
use crate::config::duration;
use crate::config::retention::Mode;
use crate::config::retention::Policy;
use crate::config::retention::Select;
use crate::config::retention::host_of;
use crate::pattern::Capture;
use crate::pattern::Glob;

/// What goes and what stays, for somebody who did not write it.
pub(super) fn sentences(config: &Config) -> Vec<String> {
    let retention = &config.retention;
    let mut said: Vec<String> = retention.policies.iter().map(about).collect();
    if said.is_empty() {
        return said;
    }
    let protect = &retention.protect;
    let mut protected: Vec<String> = protect.patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect();
    protected.extend(
        protect.files.iter().map(|file| {
            format!("what {} lists, which may be {} old", file.path.display(), duration::show(file.max_age))
        }),
    );
    if !protected.is_empty() {
        said.push(format!("Whatever policies say, these stay: {}.", protected.join("; ")));
    }
    said.push(match (&retention.schedule, retention.mode) {
        (None, _) => "Nothing of it goes by itself: only larder prune --apply deletes.".to_owned(),
        (Some(schedule), Mode::Report) => {
            format!("By the schedule {schedule} ({}) it is said in the log what would go.", config.timezone)
        }
        (Some(schedule), Mode::Apply) => {
            format!("By the schedule {schedule} ({}) it goes by itself, within at_most.", config.timezone)
        }
    });
    said
}

fn about(policy: &Policy) -> String {
    let repositories: Vec<&str> = policy.repositories.iter().map(Capture::as_str).collect();
    let select: Vec<String> = policy.select.iter().map(Select::to_string).collect();
    let except: Vec<&str> = policy.except.iter().map(Glob::as_str).collect();
    let less = if except.is_empty() { String::new() } else { format!(", less {}", except.join(", ")) };
    let keep: Vec<String> = policy.keep.iter().map(|item| format!("({item})")).collect();
    let at_most = &policy.at_most;
    format!(
        "The policy {}: of the tags {} in {}{less} stay those that {} keeps; the others go after {} in the plan, {} in a run \
         at most and {}% of all.",
        policy.name,
        select.join(", "),
        repositories.join(", "),
        keep.join(" or "),
        duration::show(policy.grace),
        at_most.deletes,
        at_most.share,
    )
}

/// What can name nothing that is configured.
pub(super) fn remarks(config: &Config) -> Vec<String> {
    let retention = &config.retention;
    let mut said = Vec::new();
    for policy in &retention.policies {
        for pattern in &policy.repositories {
            said.extend(names_nothing(policy, pattern, config));
        }
    }
    for pattern in &retention.protect.patterns {
        let mut named = retention.policies.iter().flat_map(|policy| &policy.repositories);
        if !retention.policies.is_empty() && !named.any(|repository| names_in(pattern, repository)) {
            said.push(format!("retention.protect: `{pattern}` names nothing in the repositories of any policy"));
        }
    }
    said
}

fn names_nothing(policy: &Policy, pattern: &Capture, config: &Config) -> Option<String> {
    let name = &policy.name;
    if let Some(host) = host_of(pattern.as_str()) {
        return (!config.retention.remotes.contains_key(host)).then(|| {
            format!(
                "the policy {name}: `{pattern}` names nothing: {host} is not among retention.remotes, so nothing is listed or \
                 deleted there"
            )
        });
    }
    let hosted: Vec<&str> = config.hosted.iter().map(|hosted| hosted.pattern.as_str()).collect();
    let is_hosted = config.hosted.iter().any(|hosted| hosted.pattern.overlaps(pattern.glob()));
    (!is_hosted).then(|| {
        format!(
            "the policy {name}: `{pattern}` names nothing: hosted are {}; a repository elsewhere is written with its host",
            hosted.join(", ")
        )
    })
}

/// Whether a pattern over `repository:tag` can name anything in such a repository.
fn names_in(pattern: &Glob, repository: &Capture) -> bool {
    // A tag has neither a colon nor a slash; an untagged manifest has its digest behind an at sign.
    ["*", "**"].iter().zip([":", "@"]).any(|(rest, between)| {
        let names: Option<Glob> = format!("{}{between}{rest}", repository.glob()).parse().ok();
        names.is_none_or(|names| names.overlaps(pattern))
    })
}

#[cfg(test)]
mod tests {
    use super::remarks;
    use super::sentences;
    use crate::config;
    use crate::config::Config;
    use crate::config::Sources;

    fn load(text: &str) -> Config {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("larder.yaml");
        std::fs::write(&file, text).expect("the file is written");
        let sources = Sources { file: Some(file), ..Sources::default() };
        config::load(&sources, &|_| None).unwrap_or_else(|error| panic!("{error}")).config
    }

    const TEXT: &str = "
retention:
  schedule: \"17 3 * * *\"
  policies:
  - name: branches
    repositories: [\"cache/{repo}\", \"team/**\", \"ghcr.io/acme/{repo}\"]
    select: [\"{branch|slug}-{sha:7}\"]
    except: [\"v*\"]
    keep: [{ newest: 3, pushed_within: 10d }, { tags: [\"x*\"] }]
  protect: [\"**:latest\", \"cache/app:main\", \"other/app:*\", \"ghcr.io/acme/app:v1\"]
";

    #[test]
    fn policies_are_told_in_sentences() {
        assert_eq!(
            sentences(&load(TEXT)),
            [
                "The policy branches: of the tags {branch|slug}-{sha:7} in cache/{repo}, team/**, ghcr.io/acme/{repo}, less v* \
                 stay those that (newest: 3, pushed_within: 10d) or (tags: [x*]) keeps; the others go after 1d in the plan, 500 \
                 in a run at most and 50% of all.",
                "Whatever policies say, these stay: **:latest; cache/app:main; other/app:*; ghcr.io/acme/app:v1.",
                "By the schedule 17 3 * * * (UTC) it is said in the log what would go.",
            ]
        );
        assert!(sentences(&load("")).is_empty());
    }

    #[test]
    fn what_can_name_nothing_deserves_a_remark() {
        assert_eq!(
            remarks(&load(TEXT)),
            [
                "the policy branches: `team/**` names nothing: hosted are cache/**; a repository elsewhere is written with its \
                 host",
                "the policy branches: `ghcr.io/acme/{repo}` names nothing: ghcr.io is not among retention.remotes, so nothing \
                 is listed or deleted there",
                "retention.protect: `other/app:*` names nothing in the repositories of any policy",
            ]
        );
    }
}
