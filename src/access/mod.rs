//! Who is asking, and what they may do.
//!
//! One function decides, [`Access::authorize`]; it answers with a [`Grant`], without which neither cache nor push can
//! be called. Bytes are shared between repositories, permission never is.

pub mod credentials;
pub mod grant;
mod htpasswd;
pub mod policy;
pub mod principal;
mod refused;
pub mod token;
mod visibility;

pub use credentials::Credentials;
pub use grant::Grant;
pub use policy::Ground;
pub use principal::Caller;
pub use principal::Principal;

pub use crate::config::Action;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::config;
use crate::config::upstream::Visibility;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::RepositoryKey;
use crate::repository::Proxied;
use crate::repository::Refused;
use crate::repository::Repositories;
use crate::repository::Repository;
use crate::telemetry::Metrics;
use crate::upstream;

use htpasswd::Htpasswd;
use policy::Question;
use refused::Refusals;
use token::Issued;
use token::Tokens;
use visibility::Verdict;
use visibility::Visibilities;

/// What a request touches within its repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The repository as a whole: lists of tags, uploads.
    Repository,
    /// A manifest; also what refers to it, by its digest.
    Manifest(Reference),
    /// A blob.
    Blob(Digest),
}

/// Why a request is not granted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// A credential could help and none, or none that is valid, was sent: 401 with a challenge, the same
    /// whether the repository exists or not.
    #[error("not authenticated")]
    Unauthenticated,
    /// The client may not know whether the repository exists: to be answered exactly as one that does not.
    #[error("no right to pull")]
    Hidden,
    /// The client may see the repository and not do this, or the configuration leaves the repository out.
    #[error("no right to do this")]
    Denied,
    /// Too many passwords are being checked; to be tried again soon.
    #[error("too many passwords are being checked")]
    Busy,
    /// Whether the client may see the repository depends on its upstream, which could not be asked.
    #[error("asking the upstream whether the repository is everybody's")]
    Unavailable(#[source] upstream::Error),
}

impl Refusal {
    /// The label of the metric.
    fn reason(&self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Hidden => "hidden",
            Self::Denied => "denied",
            Self::Busy => "busy",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

/// Decides who may do what.
#[derive(Debug)]
pub struct Access {
    rules: ArcSwap<Rules>,
    repositories: Arc<Repositories>,
    visibilities: Visibilities,
    refusals: Refusals,
    metrics: Arc<Metrics>,
    tokens: Tokens,
    limits: config::Limits,
}

/// What tokens are signed with and timed by.
#[derive(Clone)]
pub struct Signing {
    /// The key; it survives a restart.
    pub key: [u8; token::KEY_BYTES],
    /// The time.
    pub clock: Clock,
}

/// The key is a secret.
impl std::fmt::Debug for Signing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signing").finish_non_exhaustive()
    }
}

/// What is configured, and the users that go with it.
#[derive(Debug)]
struct Rules {
    access: config::Access,
    htpasswd: Option<Arc<Htpasswd>>,
}

/// One request, as the decision sees it.
struct Request<'a> {
    rules: &'a Rules,
    caller: &'a Caller,
    action: Action,
    repository: &'a RepositoryKey,
    target: &'a Target,
}

impl Request<'_> {
    fn ground(&self, principal: &Principal, action: Action) -> Ground {
        let question = Question {
            principal,
            address: Some(self.caller.address),
            action,
            repository: self.repository,
            target: self.target,
        };
        policy::ground(&self.rules.access, &question)
    }
}

impl Access {
    /// Decides by `access`, over those repositories.
    pub fn new(
        access: &config::Access,
        limits: &config::Limits,
        repositories: Arc<Repositories>,
        metrics: Arc<Metrics>,
        signing: Signing,
    ) -> Self {
        let htpasswd = access.htpasswd.as_ref().map(|file| Arc::new(Htpasswd::new(file, limits)));
        Self {
            rules: ArcSwap::from_pointee(Rules { access: access.clone(), htpasswd }),
            repositories,
            visibilities: Visibilities::new(limits),
            refusals: Refusals::default(),
            metrics,
            tokens: Tokens::new(&signing.key, signing.clock, limits.token_life),
            limits: limits.clone(),
        }
    }

    /// Takes new rules. Users whose file did not change need not have their passwords checked again.
    pub fn reload(&self, access: &config::Access) {
        let before = self.rules.load();
        let kept = before.htpasswd.clone().filter(|old| Some(old.file()) == access.htpasswd.as_ref());
        let htpasswd =
            kept.or_else(|| access.htpasswd.as_ref().map(|file| Arc::new(Htpasswd::new(file, &self.limits))));
        self.rules.store(Arc::new(Rules { access: access.clone(), htpasswd }));
    }

    /// Whether `caller` may do `action` with `target` of `repository`: the one decision, for every path that leads to
    /// content, a HEAD, a range and a stale answer included.
    ///
    /// A credential is looked at only where it matters: what is everybody's is served whatever password came along
    /// [clients send Docker Hub's to every mirror, moby#42022].
    ///
    /// # Errors
    ///
    /// Why not, as far as the client may learn it.
    pub async fn authorize(
        &self,
        caller: &Caller,
        action: Action,
        repository: &RepositoryKey,
        target: &Target,
    ) -> Result<Grant, Refusal> {
        let decided = self.consider(caller, action, repository, target).await;
        if let Err(refusal) = &decided {
            self.metrics.denied(refusal.reason());
            let anonymous_pull =
                action == Action::Pull && matches!(refusal, Refusal::Unauthenticated | Refusal::Hidden);
            if anonymous_pull && caller.credentials.is_none() {
                self.refusals.note();
            }
        }
        decided
    }

    /// The same decision for what the caller did not name itself, such as the tag that stands in for one that is missing: a
    /// refusal turns nobody away, so it is neither counted nor told of.
    ///
    /// # Errors
    ///
    /// As for [`Access::authorize`].
    pub async fn consider(
        &self,
        caller: &Caller,
        action: Action,
        repository: &RepositoryKey,
        target: &Target,
    ) -> Result<Grant, Refusal> {
        let at_once = {
            // No count that all threads share is touched here.
            let rules = self.rules.load();
            self.decide_at_once(&Request { rules: &rules, caller, action, repository, target })
        };
        let principal = if let Some(principal) = at_once {
            principal
        } else {
            let rules = self.rules.load_full();
            let request = Request { rules: &rules, caller, action, repository, target };
            // Boxed, so that what needs no question is not as large in memory as what needs one.
            Box::pin(self.decide(&request)).await?
        };
        Ok(Grant::new(repository.clone(), principal, action))
    }

    /// The usual case, without a wait: what anybody may pull, from an upstream that needs not be asked.
    fn decide_at_once(&self, request: &Request<'_>) -> Option<Principal> {
        if request.action != Action::Pull {
            return None;
        }
        let needs = |proxied: &Proxied| needs_asking(request.repository, proxied);
        let asks = self.repositories.look(request.repository, |proxied| proxied.is_some_and(needs)).ok()?;
        match request.ground(&Principal::Anonymous, Action::Pull) {
            Ground::Rule(_) => Some(Principal::Anonymous),
            Ground::Anonymous if !asks => Some(Principal::Anonymous),
            Ground::Anonymous | Ground::Nothing => None,
        }
    }

    async fn decide(&self, request: &Request<'_>) -> Result<Principal, Refusal> {
        // A page in a browser can make it send requests to addresses of this machine; it can't leave out `Origin`.
        if request.action != Action::Pull && request.caller.origin_header {
            return Err(Refusal::Denied);
        }
        let proxied = match self.repositories.resolve(request.repository) {
            Ok(Repository::Hosted(_)) => None,
            Ok(Repository::Proxied(proxied)) => Some(proxied),
            Err(Refused::Unknown) => {
                let principal = self.principal(request).await?;
                return Err(without_pull(request.rules, &principal));
            }
            Err(Refused::Denied) => {
                let principal = self.principal(request).await?;
                let named = request.ground(&principal, Action::Pull) != Ground::Nothing;
                return Err(if named { Refusal::Denied } else { without_pull(request.rules, &principal) });
            }
        };
        let asks = proxied
            .as_ref()
            .filter(|proxied| request.action == Action::Pull && needs_asking(request.repository, proxied));
        // Nobody in particular first: then no password needs to be checked.
        let anybody = request.ground(&Principal::Anonymous, request.action);
        let suffices = |ground: Ground| match ground {
            Ground::Nothing => false,
            Ground::Anonymous => asks.is_none(),
            Ground::Rule(_) => true,
        };
        // Whoever writes is named in the record, so a credential counts there.
        if suffices(anybody) && (request.action == Action::Pull || request.caller.credentials.is_none()) {
            return Ok(Principal::Anonymous);
        }
        let principal = self.principal(request).await?;
        let ground = request.ground(&principal, request.action);
        if suffices(ground) {
            return Ok(principal);
        }
        if ground == Ground::Anonymous
            && let Some(proxied) = asks
        {
            return match self.ask(request.repository, proxied, request.target).await? {
                Verdict::Public => Ok(principal),
                Verdict::Private => Err(without_pull(request.rules, &principal)),
            };
        }
        if request.action == Action::Pull || !self.may_pull(request, &principal, proxied.as_ref()).await? {
            return Err(without_pull(request.rules, &principal));
        }
        // It may see the repository. Who said nothing about itself may have more to say.
        let unnamed = !principal.is_authenticated() && request.rules.htpasswd.is_some();
        Err(if unnamed { Refusal::Unauthenticated } else { Refusal::Denied })
    }

    async fn may_pull(
        &self,
        request: &Request<'_>,
        principal: &Principal,
        proxied: Option<&Proxied>,
    ) -> Result<bool, Refusal> {
        match (request.ground(principal, Action::Pull), proxied) {
            (Ground::Nothing, _) => Ok(false),
            (Ground::Anonymous, Some(proxied)) if needs_asking(request.repository, proxied) => {
                Ok(self.ask(request.repository, proxied, request.target).await? == Verdict::Public)
            }
            (Ground::Anonymous | Ground::Rule(_), _) => Ok(true),
        }
    }

    async fn ask(&self, repository: &RepositoryKey, proxied: &Proxied, target: &Target) -> Result<Verdict, Refusal> {
        let stale_if_error = match target {
            Target::Manifest(Reference::Tag(tag)) => self.repositories.freshness(repository, tag).stale_if_error,
            Target::Manifest(Reference::Digest(_)) | Target::Blob(_) | Target::Repository => {
                crate::repository::Freshness::defaults(true).stale_if_error
            }
        };
        let asked = self.visibilities.verdict(repository, proxied, target, stale_if_error).await;
        asked.map_err(Refusal::Unavailable)
    }

    async fn principal(&self, request: &Request<'_>) -> Result<Principal, Refusal> {
        self.identify(request.rules, request.caller).await
    }

    /// Who `caller` is, for `GET /v2/`: with authentication configured a valid credential is asked for; a token that says
    /// that it is nobody in particular is one.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthenticated`] or [`Refusal::Busy`].
    pub async fn authenticate(&self, caller: &Caller) -> Result<Principal, Refusal> {
        let rules = self.rules.load_full();
        let principal = self.identify(&rules, caller).await?;
        let has_token =
            matches!(&caller.credentials, Some(Credentials::Bearer(token)) if self.tokens.read(token).is_some());
        if rules.htpasswd.is_some() && !principal.is_authenticated() && !has_token {
            self.metrics.denied(Refusal::Unauthenticated.reason());
            return Err(Refusal::Unauthenticated);
        }
        Ok(principal)
    }

    /// The answer to a request that names no repository: the same as to one for a repository that is not shown.
    ///
    /// Whoever may pull on no more than being somebody learns that the name is unknown; who would have to say first who
    /// it is learns that, and nothing of what is configured.
    pub async fn unknown(&self, caller: &Caller) -> Refusal {
        let rules = self.rules.load_full();
        if rules.access.anonymous.contains(&Action::Pull) {
            return Refusal::Hidden;
        }
        let refusal = match self.identify(&rules, caller).await {
            Ok(principal) => without_pull(&rules, &principal),
            Err(busy) => busy,
        };
        self.metrics.denied(refusal.reason());
        refusal
    }

    /// Whether a client can say who it is at all.
    pub fn authenticates(&self) -> bool {
        self.rules.load().htpasswd.is_some()
    }

    /// A token for `caller`. Who has no credential gets one that says so. Who has a wrong one gets that one too where it
    /// wants to pull and nothing else: dockerd sends Docker Hub's password to every mirror (moby#42022), and what anybody may
    /// pull is not kept from it. Who logs in, or wants to write, learns that the credential is wrong.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthenticated`] or [`Refusal::Busy`].
    pub async fn token(&self, caller: &Caller, only_pulls: bool) -> Result<Issued, Refusal> {
        let rules = self.rules.load_full();
        let principal = self.identify(&rules, caller).await?;
        if caller.credentials.is_some() && !principal.is_authenticated() && !only_pulls && rules.htpasswd.is_some() {
            self.metrics.denied(Refusal::Unauthenticated.reason());
            return Err(Refusal::Unauthenticated);
        }
        Ok(self.tokens.issue(&principal))
    }

    /// A credential that means nothing here, another registry's for instance, tells nobody.
    async fn identify(&self, rules: &Rules, caller: &Caller) -> Result<Principal, Refusal> {
        match (&rules.htpasswd, &caller.credentials) {
            (Some(htpasswd), Some(Credentials::Basic { user, password })) => {
                match htpasswd.verify(user, password).await {
                    Ok(true) => Ok(Principal::User(user.as_str().into())),
                    Ok(false) => Ok(Principal::Anonymous),
                    Err(htpasswd::Busy) => Err(Refusal::Busy),
                }
            }
            (Some(htpasswd), Some(Credentials::Bearer(token))) => Ok(match self.tokens.read(token) {
                Some(Principal::User(user)) if htpasswd.has(&user) => Principal::User(user),
                _ => Principal::Anonymous,
            }),
            _ => Ok(Principal::Anonymous),
        }
    }

    /// What the permission would rest on, for explanations; asks nobody. [`Ground::Anonymous`] opens of an upstream
    /// with a credential only what that shows to anybody.
    pub fn explain(
        &self,
        principal: &Principal,
        address: Option<IpAddr>,
        action: Action,
        repository: &RepositoryKey,
        target: &Target,
    ) -> Ground {
        policy::ground(&self.rules.load().access, &Question { principal, address, action, repository, target })
    }
}

/// Whether it depends on the upstream who may pull the repository on no more than the general permission.
fn needs_asking(repository: &RepositoryKey, proxied: &Proxied) -> bool {
    !proxied.is_everybodys(repository)
        && match proxied.visibility() {
            Visibility::Verify => true,
            Visibility::Shared => false,
        }
}

/// The answer to who has no right to pull. It is the same whether the repository exists or not.
fn without_pull(rules: &Rules, principal: &Principal) -> Refusal {
    if rules.htpasswd.is_some() && !principal.is_authenticated() { Refusal::Unauthenticated } else { Refusal::Hidden }
}

#[cfg(test)]
mod tests;
