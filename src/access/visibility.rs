//! Whether a repository is everybody's: asked of its upstream, without our credential.
//!
//! An upstream with a credential opens private images to us. What it shows to anybody is anybody's here too; the rest
//! needs a rule. The question is a HEAD for the very thing that is wanted, and the answer is about the repository:
//! registries give permission by repository.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::future::Shared;
use futures_util::future::WeakShared;
use quick_cache::sync::Cache;
use std::sync::Arc;
use tokio::time::Instant;

use crate::config;
use crate::config::Limits;
use crate::oci::Reference;
use crate::oci::RepositoryKey;
use crate::repository::Proxied;
use crate::upstream;
use crate::upstream::Ask;
use crate::upstream::Fault;
use crate::upstream::Identity;
use crate::upstream::Priority;

use super::Target;

/// For how long a repository that was seen to be everybody's is taken for that without asking.
const PUBLIC_FOR: Duration = Duration::from_hours(24);

/// What an upstream shows to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The repository is everybody's.
    Public,
    /// The upstream does not show it without a credential.
    Private,
}

/// Remembers what upstreams show to anybody.
pub(super) struct Visibilities {
    known: Cache<Subject, Known>,
    asking: Mutex<HashMap<Subject, WeakShared<Question>>>,
    private_for: Duration,
}

/// A repository, or one thing of it where the answer says nothing about the rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subject {
    repository: RepositoryKey,
    target: Option<Target>,
}

#[derive(Clone)]
struct Known {
    verdict: Verdict,
    at: Instant,
    /// The configuration that it was asked under: another credential or endpoint makes it void.
    settings: Arc<config::Upstream>,
}

/// What the upstream was found to say, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// It shows the repository.
    Shown,
    /// It refuses the repository.
    Refused,
    /// It has no such thing for anybody, nor a list of tags. That may be a private repository or none at all, so it is
    /// believed of this target only: else whoever asks for what is missing could hide a public repository.
    Absent,
}

type Question = BoxFuture<'static, Result<Finding, upstream::Error>>;

impl Visibilities {
    /// Nothing is known yet. The limits bound how much is remembered, and for how long the upstream's "no".
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            known: Cache::new(usize::try_from(limits.decisions).unwrap_or(usize::MAX)),
            asking: Mutex::new(HashMap::new()),
            private_for: limits.absent,
        }
    }

    /// Whether `target`'s repository is everybody's. While the upstream is unavailable a repository that was everybody's
    /// stays so for `stale_if_error` from the last time that it was seen.
    ///
    /// # Errors
    ///
    /// The upstream could not be asked and nothing is known: neither "public" nor "private" would be true.
    pub(super) async fn verdict(
        &self,
        repository: &RepositoryKey,
        proxied: &Proxied,
        target: &Target,
        stale_if_error: Duration,
    ) -> Result<Verdict, upstream::Error> {
        let whole = Subject { repository: repository.clone(), target: None };
        let one = Subject { repository: repository.clone(), target: Some(target.clone()) };
        let known = self.recall(&whole, proxied);
        if let Some(known) = &known
            && known.at.elapsed() < self.believed_for(known.verdict)
        {
            return Ok(known.verdict);
        }
        if let Some(known) = self.recall(&one, proxied)
            && known.at.elapsed() < self.private_for
        {
            return Ok(known.verdict);
        }
        let held = known.filter(|known| known.verdict == Verdict::Public && known.at.elapsed() <= stale_if_error);
        let within = held.as_ref().map(|_| proxied.limits.stale_answer);
        let verdict = match self.ask(&one, proxied, within).await {
            Ok(Finding::Shown) => self.remember(whole, Verdict::Public, proxied),
            Ok(Finding::Refused) => self.remember(whole, Verdict::Private, proxied),
            Ok(Finding::Absent) => self.remember(one, Verdict::Private, proxied),
            Err(error) => return held.map(|known| known.verdict).ok_or(error),
        };
        Ok(verdict)
    }

    fn believed_for(&self, verdict: Verdict) -> Duration {
        match verdict {
            Verdict::Public => PUBLIC_FOR,
            Verdict::Private => self.private_for,
        }
    }

    fn recall(&self, subject: &Subject, proxied: &Proxied) -> Option<Known> {
        self.known.get(subject).filter(|known| Arc::ptr_eq(&known.settings, &proxied.settings))
    }

    fn remember(&self, subject: Subject, verdict: Verdict, proxied: &Proxied) -> Verdict {
        if verdict == Verdict::Private {
            tracing::info!(
                repository = %subject.repository,
                "the upstream does not show this without a credential: a pull needs a rule of access, or visibility: shared"
            );
        }
        self.known.insert(subject, Known { verdict, at: Instant::now(), settings: Arc::clone(&proxied.settings) });
        verdict
    }

    /// Asks once however many want to know; whoever still waits carries the question on when another goes away.
    async fn ask(
        &self,
        subject: &Subject,
        proxied: &Proxied,
        within: Option<Duration>,
    ) -> Result<Finding, upstream::Error> {
        let question = {
            let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
            let running = asking.get(subject).and_then(WeakShared::upgrade);
            running.unwrap_or_else(|| {
                // Questions that everybody went away from leave nothing but their names behind.
                asking.retain(|_, question| question.upgrade().is_some());
                let question = find_out(subject.clone(), proxied.clone(), within).boxed().shared();
                if let Some(weak) = question.downgrade() {
                    asking.insert(subject.clone(), weak);
                }
                question
            })
        };
        let finding: Shared<Question> = question;
        let finding = finding.await;
        self.asking.lock().unwrap_or_else(PoisonError::into_inner).remove(subject);
        finding
    }
}

async fn find_out(subject: Subject, proxied: Proxied, within: Option<Duration>) -> Result<Finding, upstream::Error> {
    let ask = Ask {
        name: subject.repository.name.clone(),
        priority: Priority::Client,
        identity: Identity::Anonymous,
        within,
    };
    let upstream = &proxied.upstream;
    let shown = match &subject.target {
        Some(Target::Manifest(reference)) => upstream.resolve(&ask, reference).await.map(|found| found.is_some()),
        Some(Target::Blob(digest)) => upstream.blob_size(&ask, digest).await.map(|found| found.is_some()),
        Some(Target::Repository) | None => Ok(false),
    };
    let by_digest = matches!(&subject.target, Some(Target::Manifest(Reference::Digest(_)) | Target::Blob(_)));
    match shown {
        Ok(true) => Ok(Finding::Shown),
        Err(error) if is_refusal(&error) => Ok(Finding::Refused),
        // A HEAD without a digest, for instance, says nothing; nor does a 404, which some registries give for "no".
        Ok(false) => shown_by_list(&proxied, &ask).await,
        Err(error) if error.fault() == Fault::Unusable && !by_digest => shown_by_list(&proxied, &ask).await,
        Err(error) => Err(error),
    }
}

/// A list of tags that anybody gets shows the repository too.
async fn shown_by_list(proxied: &Proxied, ask: &Ask) -> Result<Finding, upstream::Error> {
    match proxied.upstream.tags(ask, None, 1).await {
        Ok(Some(_)) => Ok(Finding::Shown),
        Ok(None) => Ok(Finding::Absent),
        Err(error) if is_refusal(&error) => Ok(Finding::Refused),
        Err(error) => Err(error),
    }
}

/// Whether the upstream said no to anybody. A token service that gives nothing to anonymous clients says so too.
fn is_refusal(error: &upstream::Error) -> bool {
    matches!(error.fault(), Fault::Denied | Fault::CredentialRefused)
}

impl std::fmt::Debug for Visibilities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visibilities").field("known", &self.known.len()).finish_non_exhaustive()
    }
}
