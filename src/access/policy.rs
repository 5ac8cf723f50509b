//! The rules: what a principal may do. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Action;
use crate::config::access::Rule;
use crate::config::access::Who;
use crate::oci::Reference;
use crate::oci::RepositoryKey;

use super::Principal;
use super::Target;

/// What the permission to do something rests on, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ground {
    /// Nothing: it is not permitted.
    Nothing,
    /// `access.anonymous`, which is everybody's and names no repository: of what came with an upstream's credential it
    /// opens only what the upstream itself shows to anybody.
    Anonymous,
    /// The rule of that number, counted from 0: whoever wrote it meant these repositories, whole.
    Rule(usize),
}

/// The place in the configuration.
impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no rule"),
            Self::Anonymous => f.write_str("access.anonymous"),
            Self::Rule(number) => write!(f, "access.rules[{number}]"),
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// Where it connects from; none where that is not known, as in an explanation.
    pub address: Option<IpAddr>,
    /// What it would do.
    pub action: Action,
    /// With which repository.
    pub repository: &'a RepositoryKey,
    /// With what of it.
    pub target: &'a Target,
}

/// What `access` permits, the best ground first: a rule before the general permission. Any rule that permits suffices.
pub fn ground(access: &crate::config::Access, question: &Question<'_>) -> Ground {
    let rule = access.rules.iter().position(|rule| applies(rule, &access.networks, question));
    match rule {
        Some(number) => Ground::Rule(number),
        None if access.anonymous.contains(&question.action) => Ground::Anonymous,
        None => Ground::Nothing,
    }
}

fn applies(rule: &Rule, networks: &BTreeMap<String, Vec<IpNet>>, question: &Question<'_>) -> bool {
    let name = question.repository.to_string();
    rule.may.contains(&question.action)
        && is_whose(&rule.who, networks, question)
        && rule.repositories.iter().any(|glob| glob.matches(&name))
        && (rule.tags.is_empty() || reaches(rule, question))
}

fn is_whose(who: &Who, networks: &BTreeMap<String, Vec<IpNet>>, question: &Question<'_>) -> bool {
    match (who, question.principal) {
        (Who::Everybody, _) => true,
        (Who::Network(name), _) => {
            // A socket that takes both families shows IPv4 clients as mapped addresses.
            let address = question.address.map(|address| address.to_canonical());
            let networks = networks.get(name).map(Vec::as_slice).unwrap_or_default();
            address.is_some_and(|address| networks.iter().any(|network| network.contains(&address)))
        }
        (Who::User(glob), Principal::User(user)) => glob.matches(user),
        (Who::User(_), Principal::Anonymous | Principal::Job(_)) => false,
    }
}

/// Whether a rule that is limited to tags reaches the target. Blobs and manifests by digest can't be told by tag: they
/// are needed to pull or push any tag, so pulling and pushing reach them; deleting by digest would take every tag that
/// has it, so deleting does not.
fn reaches(rule: &Rule, question: &Question<'_>) -> bool {
    match question.target {
        Target::Manifest(Reference::Tag(tag)) => rule.tags.iter().any(|glob| glob.matches(tag.as_str())),
        Target::Manifest(Reference::Digest(_)) | Target::Blob(_) | Target::Repository => {
            question.action != Action::Delete
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Access;

    fn access() -> Access {
        let rule = |who: Who, may: &[Action], repositories: &[&str], tags: &[&str]| Rule {
            who,
            may: may.to_vec(),
            repositories: repositories.iter().map(|g| g.parse().unwrap()).collect(),
            tags: tags.iter().map(|g| g.parse().unwrap()).collect(),
        };
        Access {
            anonymous: vec![Action::Pull],
            networks: [("runners".to_owned(), vec!["10.20.0.0/16".parse().unwrap()])].into(),
            htpasswd: None,
            rules: vec![
                rule(Who::User("alice".parse().unwrap()), &[Action::Pull, Action::Push], &["cache/**"], &[]),
                rule(Who::Network("runners".into()), &[Action::Pull], &["ghcr.io/acme/**"], &[]),
                rule(Who::User("bot-*".parse().unwrap()), &[Action::Push, Action::Delete], &["cache/app"], &["pr-*"]),
                rule(Who::Everybody, &[Action::Push], &["cache/open"], &[]),
            ],
            ..Access::default()
        }
    }

    fn asked(who: &str, address: &str, action: Action, repository: &str, target: &str) -> Ground {
        let principal = if who == "-" { Principal::Anonymous } else { Principal::User(who.into()) };
        let target = match target {
            "" => Target::Repository,
            "blob" => Target::Blob(crate::oci::Digest::of(b"")),
            reference => Target::Manifest(reference.parse().unwrap()),
        };
        let repository = RepositoryKey::from_path(repository).unwrap();
        let address = Some(address.parse().unwrap());
        ground(
            &access(),
            &Question { principal: &principal, address, action, repository: &repository, target: &target },
        )
    }

    #[test]
    fn the_rules_say_who_may_do_what() {
        let digest = crate::oci::Digest::of(b"").to_string();
        for (who, address, action, repository, target, want) in [
            ("-", "9.9.9.9", Action::Pull, "docker.io/library/alpine", "latest", Ground::Anonymous),
            ("-", "9.9.9.9", Action::Push, "_hosted/cache/app", "latest", Ground::Nothing),
            ("-", "9.9.9.9", Action::Push, "_hosted/cache/open", "latest", Ground::Rule(3)),
            ("alice", "9.9.9.9", Action::Push, "_hosted/cache/app", "latest", Ground::Rule(0)),
            ("alice", "9.9.9.9", Action::Pull, "_hosted/cache/app", "latest", Ground::Rule(0)),
            ("alice", "9.9.9.9", Action::Delete, "_hosted/cache/app", "latest", Ground::Nothing),
            // A hosted pattern says nothing of an upstream's repository of that name.
            ("alice", "9.9.9.9", Action::Push, "docker.io/cache/app", "latest", Ground::Nothing),
            ("alicia", "9.9.9.9", Action::Push, "_hosted/cache/app", "latest", Ground::Nothing),
            ("-", "10.20.3.4", Action::Pull, "ghcr.io/acme/app", "latest", Ground::Rule(1)),
            ("-", "::ffff:10.20.3.4", Action::Pull, "ghcr.io/acme/app", "blob", Ground::Rule(1)),
            ("-", "10.21.3.4", Action::Pull, "ghcr.io/acme/app", "latest", Ground::Anonymous),
            ("alice", "10.20.3.4", Action::Pull, "ghcr.io/acme/app", "", Ground::Rule(1)),
            ("bot-1", "9.9.9.9", Action::Push, "_hosted/cache/app", "pr-7", Ground::Rule(2)),
            ("bot-1", "9.9.9.9", Action::Push, "_hosted/cache/app", "main", Ground::Nothing),
            ("bot-1", "9.9.9.9", Action::Push, "_hosted/cache/app", "blob", Ground::Rule(2)),
            ("bot-1", "9.9.9.9", Action::Push, "_hosted/cache/app", &digest, Ground::Rule(2)),
            ("bot-1", "9.9.9.9", Action::Delete, "_hosted/cache/app", "pr-7", Ground::Rule(2)),
            ("bot-1", "9.9.9.9", Action::Delete, "_hosted/cache/app", &digest, Ground::Nothing),
        ] {
            assert_eq!(asked(who, address, action, repository, target), want, "{who} {action:?} {repository}:{target}");
        }
    }

    #[test]
    fn nothing_is_given_unless_said() {
        let target = Target::Repository;
        let repository = RepositoryKey::from_path("docker.io/library/alpine").unwrap();
        for action in [Action::Pull, Action::Push, Action::Delete] {
            let question = Question {
                principal: &Principal::User("alice".into()),
                address: Some(IpAddr::from([127, 0, 0, 1])),
                action,
                repository: &repository,
                target: &target,
            };
            assert_eq!(ground(&Access::default(), &question), Ground::Nothing);
        }
    }

    proptest::proptest! {
        #[test]
        fn a_credential_and_another_rule_never_take_anything_away(
            users in proptest::collection::vec(proptest::sample::select(vec!["alice", "bot-*", "*", "carol"]), 0..4),
            repositories in proptest::collection::vec(proptest::sample::select(vec!["cache/**", "ghcr.io/**", "**", "cache/app"]), 4),
            action in proptest::sample::select(vec![Action::Pull, Action::Push, Action::Delete]),
            repository in proptest::sample::select(vec!["_hosted/cache/app", "ghcr.io/acme/app"]),
            target in proptest::sample::select(vec!["latest", "pr-1"]),
        ) {
            let mut access = access();
            let (target, repository) = (Target::Manifest(target.parse().unwrap()), RepositoryKey::from_path(repository).unwrap());
            let ask = |access: &Access, principal: Principal| {
                let address = Some(IpAddr::from([10, 20, 0, 1]));
                let question =
                    Question { principal: &principal, address, action, repository: &repository, target: &target };
                ground(access, &question) != Ground::Nothing
            };
            for (user, repositories) in users.iter().zip(&repositories) {
                let before = (ask(&access, Principal::Anonymous), ask(&access, Principal::User("alice".into())));
                access.rules.push(Rule {
                    who: Who::User(user.parse().unwrap()),
                    may: vec![action],
                    repositories: vec![repositories.parse().unwrap()],
                    tags: Vec::new(),
                });
                let after = (ask(&access, Principal::Anonymous), ask(&access, Principal::User("alice".into())));
                proptest::prop_assert!(after.0 >= before.0 && after.1 >= before.1 && after.1 >= after.0);
                // A rule for users says nothing about who is not one.
                proptest::prop_assert_eq!(after.0, before.0);
            }
        }
    }
}
