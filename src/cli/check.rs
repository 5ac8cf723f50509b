//! `larder check`: what is wrong with the configuration, or what it means.

mod retention;

use serde_json::json;

use crate::config;
use crate::config::BuildCache;
use crate::config::Config;
use crate::config::Forge;
use crate::config::Loaded;
use crate::config::Notify;
use crate::config::access::Who;
use crate::config::duration;
use crate::config::repository::FreshnessRule;
use crate::config::repository::Windows;
use crate::config::size;
use crate::config::store::Durability;
use crate::config::upstream::Credential;
use crate::config::upstream::Upstream;
use crate::config::upstream::Visibility;
use crate::pattern::Glob;
use crate::pattern::Template;

use super::Console;
use super::Error;
use super::Global;
use super::Outcome;
use super::console;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments, global: &Global, console: &Console) -> Result<Outcome, Error> {
    let loaded = match global.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            if let (true, Error::Configuration(error)) = (console.json, &error) {
                console.document(&refusal(error));
            }
            return Err(error);
        }
    };
    let sources = global.sources();
    let file = sources.file.as_ref().map(|file| file.display().to_string());
    let mut remarks: Vec<String> = loaded.remarks.iter().map(ToString::to_string).collect();
    remarks.extend(remark_on_space(&loaded.config));
    remarks.extend(remarks_on_helpers(&loaded.config));
    remarks.extend(retention::remarks(&loaded.config));
    let sentences = sentences(&loaded);
    if console.json {
        console.document(&json!({ "valid": true, "file": file, "sentences": sentences, "remarks": remarks }));
        return Ok(Outcome::Done);
    }
    console.result(&match file {
        Some(file) => format!("{file} is valid."),
        None => "There is no configuration file; these are the defaults.".to_owned(),
    });
    for sentence in &sentences {
        console.result(sentence);
    }
    for remark in &remarks {
        console.warning(remark);
    }
    Ok(Outcome::Done)
}

fn refusal(error: &config::Error) -> serde_json::Value {
    let problems = match error {
        config::Error::Read { .. } => vec![json!({ "message": error.to_string() })],
        config::Error::Wrong { problems } => problems
            .iter()
            .map(|problem| json!({ "place": problem.place, "key": problem.key, "message": problem.message }))
            .collect(),
    };
    json!({ "valid": false, "problems": problems })
}

/// What the configuration means, for somebody who did not write it.
fn sentences(loaded: &Loaded) -> Vec<String> {
    let config = &loaded.config;
    let mut said = vec![listening(config)];
    said.extend(rights(config));
    said.extend(upstreams(config));
    said.extend(freshness(config));
    said.push(hosted(config));
    said.push(runs(config));
    said.extend(config.build_caches.iter().map(build_cache));
    said.extend(config.notify.iter().map(about_notify));
    said.extend(config.forges.iter().map(|(name, forge)| about_forge(name, forge)));
    said.extend(retention::sentences(config));
    said.push(store(config));
    said
}

fn listening(config: &Config) -> String {
    let addresses: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    let how = if config.tls.is_some() { "with TLS" } else { "without encryption" };
    let who = if config.is_loopback() { ", for programs of this machine only" } else { "" };
    let name = config.external_url.as_ref().map(|url| format!(" Clients call it {url}.")).unwrap_or_default();
    format!(
        "The registry listens on {} {how}{who}; the admin API on {}.{name}",
        addresses.join(" and "),
        config.admin.listen
    )
}

fn rights(config: &Config) -> Vec<String> {
    let words = |actions: &[config::Action]| {
        let words: Vec<&str> = actions.iter().map(|action| action.word()).collect();
        words.join(" and ")
    };
    let access = &config.access;
    let mut said = Vec::new();
    if access.anonymous.is_empty() {
        said.push("Clients without a credential may do only what a rule for `*` or a network says.".to_owned());
    } else {
        said.push(format!("Whoever reaches it may {} without a credential.", words(&access.anonymous)));
    }
    if let Some(file) = &access.htpasswd {
        said.push(format!("Users and passwords are in {}.", file.path.display()));
    }
    for rule in &access.rules {
        let who = match &rule.who {
            Who::Everybody => "Everybody".to_owned(),
            Who::Network(name) => {
                let networks = access.networks.get(name).into_iter().flatten();
                let networks: Vec<String> = networks.map(ToString::to_string).collect();
                format!("Clients from {name} ({})", networks.join(", "))
            }
            Who::User(name) => format!("The user {}", name.as_str()),
        };
        let tags = if rule.tags.is_empty() { String::new() } else { format!(", tags {}", globs(&rule.tags)) };
        said.push(format!("{who} may {} {}{tags}.", words(&rule.may), globs(&rule.repositories)));
    }
    said
}

fn globs(patterns: &[Glob]) -> String {
    patterns.iter().map(Glob::as_str).collect::<Vec<_>>().join(", ")
}

fn upstreams(config: &Config) -> Vec<String> {
    let mut said =
        vec![format!("Images come from these upstreams; a name without a host means {}:", config.default_upstream)];
    said.extend(config.upstreams.values().map(|upstream| format!("  {}", about(upstream))));
    said
}

fn about(upstream: &Upstream) -> String {
    let endpoints: Vec<&str> = upstream.endpoints.iter().map(|url| url.as_str().trim_end_matches('/')).collect();
    let credential = match &upstream.credential {
        None => "without a credential".to_owned(),
        Some(Credential::Basic { username, .. }) => format!("as {username} with a password"),
        Some(Credential::DockerConfig(path)) => format!("with the credential of {}", path.display()),
        Some(Credential::Helper(name)) => format!("with what docker-credential-{name} answers"),
    };
    let mut parts = vec![format!("{} at {}, {credential}", upstream.host, endpoints.join(", then "))];
    match (&upstream.credential, upstream.visibility) {
        (None, _) => {}
        (Some(_), Visibility::Verify) => {
            parts.push("what it does not give to anybody needs a rule of access".to_owned());
        }
        (Some(_), Visibility::Shared) => parts.push("what it gives is given to whoever may pull here".to_owned()),
    }
    if !upstream.allow.is_empty() {
        parts.push(format!("only {}", globs(&upstream.allow)));
    }
    if !upstream.deny.is_empty() {
        parts.push(format!("never {}", globs(&upstream.deny)));
    }
    if let Some(proxy) = &upstream.proxy {
        parts.push(format!("through the proxy {}", proxy.url));
    }
    parts.join("; ")
}

fn freshness(config: &Config) -> Vec<String> {
    let mut said = Vec::new();
    let default = Windows::defaults(false);
    said.push(format!(
        "A tag is fresh for {}, then served for {} while its upstream is asked, and for {} while that is unavailable; \
         of an upstream with a credential it is asked for each time.",
        duration::show(default.fresh_for),
        duration::show(default.stale_while_revalidate),
        duration::show(default.stale_if_error),
    ));
    said.extend(config.freshness.rules.iter().map(|rule| format!("  {}", exception(rule))));
    said
}

fn exception(rule: &FreshnessRule) -> String {
    if rule.immutable {
        return format!("{}: never asked for again", rule.pattern.as_str());
    }
    let windows = [
        ("fresh for", rule.fresh_for),
        ("served while the upstream is asked for", rule.stale_while_revalidate),
        ("served while it is unavailable for", rule.stale_if_error),
    ];
    let said: Vec<String> = windows
        .into_iter()
        .filter_map(|(words, window)| Some(format!("{words} {}", duration::show(window?))))
        .collect();
    let said = if said.is_empty() { "the upstream's defaults".to_owned() } else { said.join(", ") };
    format!("{}: {said}", rule.pattern.as_str())
}

fn hosted(config: &Config) -> String {
    let patterns: Vec<&str> = config.hosted.iter().map(|hosted| hosted.pattern.as_str()).collect();
    if patterns.is_empty() {
        return "No repository lives here; everything comes from upstreams.".to_owned();
    }
    format!("Names that live here and never come from an upstream: {}.", patterns.join(", "))
}

fn runs(config: &Config) -> String {
    format!(
        "A tag means the same for all of a run (run/<id>/ in front of a name) until nobody used that for {}; what runs saw \
         is not evicted, up to {}% of store.max_size.",
        duration::show(config.runs.keep),
        config.runs.max_share,
    )
}

fn build_cache(entry: &BuildCache) -> String {
    let pattern = entry.pattern.as_str();
    let fallback: Vec<&str> = entry.fallback.iter().map(Template::as_str).collect();
    if fallback.is_empty() {
        return format!("Build caches in {pattern}: nothing stands in for a tag that is missing.");
    }
    let mut unknown: Vec<String> = entry.unknown().map(|name| format!("{{{name}}}")).collect();
    unknown.dedup();
    let skipped = match unknown.as_slice() {
        [] => String::new(),
        names => format!(" What names {} is skipped: nothing knows it yet.", names.join(" or ")),
    };
    format!(
        "Build caches in {pattern}: where a tag of the form {} is missing, the first of {} that is here stands in.{skipped}",
        entry.tag,
        fallback.join(", then "),
    )
}

fn about_notify(notify: &Notify) -> String {
    let words: Vec<&str> = notify.events.iter().map(|event| event.word()).collect();
    format!("What is told at the URL in {}: {}.", notify.file.display(), words.join(", "))
}

fn about_forge(name: &str, forge: &Forge) -> String {
    let api = forge.api.as_str().trim_end_matches('/');
    let token = if forge.token.is_some() { "with a token" } else { "without a token" };
    let hook = match forge.webhook_secret {
        Some(_) => format!("its webhooks are taken at /hooks/{name}"),
        None => format!("no webhook of it is believed without forges.{name}.webhook_secret_file"),
    };
    format!("Branches and pull requests of {name} are asked of {api} ({}), {token}; {hook}.", forge.kind.word())
}

fn store(config: &Config) -> String {
    let store = &config.store;
    let durability = match store.durability {
        Durability::Strict => "What is acknowledged survives a power cut",
        Durability::Relaxed => "What is acknowledged survives a crash of the process, not a power cut",
    };
    format!(
        "What came from upstreams takes at most {} in {}; eviction begins at {}% of it and ends at {}%; {} of the disk stay free. {durability}.",
        size::show(store.max_size),
        store.path.display(),
        store.high_watermark,
        store.low_watermark,
        size::show(store.reserve_free),
    )
}

/// Whether the disk can hold what it is meant to.
fn remark_on_space(config: &Config) -> Option<String> {
    let free = free_space(&config.store.path)?;
    let wanted = config.store.max_size;
    (free < wanted).then(|| {
        format!(
            "store.max_size is {}, and the file system of {} has {} free: the disk is full before eviction begins",
            size::show(wanted),
            config.store.path.display(),
            console::size(free)
        )
    })
}

/// The credential helpers that this user would not find. The server may run with another `$PATH`.
fn remarks_on_helpers(config: &Config) -> Vec<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let helpers = config.upstreams.values().filter_map(|upstream| match &upstream.credential {
        Some(Credential::Helper(name)) => Some((&upstream.host, format!("docker-credential-{name}"))),
        _ => None,
    });
    helpers
        .filter(|(_, program)| !found(program))
        .map(|(host, program)| format!("upstreams.{host}.credential.helper: {program} is not in $PATH"))
        .collect()
}

/// Bytes that are left on the file system of a path, or of the nearest folder above it that is there.
pub(super) fn free_space(path: &std::path::Path) -> Option<u64> {
    let absolute = std::path::absolute(path).ok()?;
    let there = absolute.ancestors().find(|folder| folder.exists())?;
    let found = rustix::fs::statvfs(there).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::sentences;
    use crate::config;
    use crate::config::Sources;

    #[test]
    fn the_defaults_are_told_in_sentences() {
        let loaded = config::load(&Sources::default(), &|_| None).expect("the defaults load");
        let said = sentences(&loaded).join("\n");
        let wanted = "\
The registry listens on 127.0.0.1:5000 without encryption, for programs of this machine only; the admin API on 127.0.0.1:5001.
Whoever reaches it may pull and push and delete without a credential.
Images come from these upstreams; a name without a host means docker.io:
  docker.io at https://registry-1.docker.io, without a credential
  gcr.io at https://gcr.io, without a credential
  ghcr.io at https://ghcr.io, without a credential
  mcr.microsoft.com at https://mcr.microsoft.com, without a credential
  public.ecr.aws at https://public.ecr.aws, without a credential
  quay.io at https://quay.io, without a credential
  registry.k8s.io at https://registry.k8s.io, without a credential
A tag is fresh for 1m, then served for 10m while its upstream is asked, and for 30d while that is unavailable; of an upstream with a credential it is asked for each time.
  **:sha-*: never asked for again
Names that live here and never come from an upstream: cache/**.
A tag means the same for all of a run (run/<id>/ in front of a name) until nobody used that for 1d; what runs saw is not evicted, up to 25% of store.max_size.
What came from upstreams takes at most 50GiB in ./larder-data; eviction begins at 95% of it and ends at 90%; 256MiB of the disk stay free. What is acknowledged survives a power cut.";
        assert_eq!(said, wanted);
    }

    #[test]
    fn a_fallback_says_what_stands_in_and_what_is_skipped() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("larder.yaml");
        let text = "forges: { tea: { kind: gitea, api: \"https://tea.test/api/v1\" } }\nbuild_caches:\n- { match: \"cache/**\", fallback: [\"{base|slug}\", main] }\n- { match: \"a\", fallback: [] }\n";
        std::fs::write(&file, text).expect("the file is written");
        let sources = Sources { file: Some(file), ..Sources::default() };
        let said = sentences(&config::load(&sources, &|_| None).expect("it loads"));
        for wanted in [
            "Build caches in cache/**: where a tag of the form {branch|slug} is missing, the first of {base|slug}, then main \
             that is here stands in. What names {base} is skipped: nothing knows it yet.",
            "Build caches in a: nothing stands in for a tag that is missing.",
            "Branches and pull requests of tea are asked of https://tea.test/api/v1 (gitea), without a token; no webhook of it is \
             believed without forges.tea.webhook_secret_file.",
        ] {
            assert!(said.iter().any(|sentence| sentence == wanted), "{said:#?}");
        }
    }
}
