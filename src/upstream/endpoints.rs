//! One upstream's endpoints: asked in order, with the health of each of their parts.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use crate::clock::Clock;
use crate::config::upstream::UpstreamLimits;
use crate::events::Events;
use crate::net::Client;
use crate::net::address::Origin;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

use super::Ask;
use super::EndpointState;
use super::Error;
use super::Fault;
use super::Health;
use super::Identity;
use super::NoConnection;
use super::Priority;
use super::Retry;
use super::budget::Budget;
use super::challenge;
use super::challenge::Challenge;
use super::circuit::Admission;
use super::circuit::Circuit;
use super::circuit::Failure;
use super::circuit::Part;
use super::circuit::Probe;
use super::credential::Credentials;
use super::exchange::Answer;
use super::exchange::Failed;
use super::exchange::Question;
use super::exchange::Right;
use super::exchange::Session;
use super::gate::Gate;
use super::realm::Realms;
use super::token::Tokens;

/// Tries of one question at one endpoint.
const TRIES: u32 = 2;

/// Between the two, jittered.
const BETWEEN_TRIES_MS: std::ops::Range<u64> = 50..150;

/// Everything that the calls to one upstream share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) host: String,
    pub(super) client: Client,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) credentials: Credentials,
    pub(super) realms: Realms,
    pub(super) limits: UpstreamLimits,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: Events,
    pub(super) tasks: Tasks,
}

/// One address of the upstream.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) url: Url,
    pub(super) origin: Origin,
    pub(super) gate: Gate,
    pub(super) tokens: Tokens,
    circuits: [Circuit; 3],
    budgets: [Budget; 2],
    known: Mutex<Option<Known>>,
}

/// What the endpoint wanted to see last, so that it is shown at once.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) challenge: Challenge,
    /// What stands around the repository's name in its scopes.
    around: Option<(String, String)>,
}

impl Known {
    pub(super) fn new(challenge: Challenge, name: &str) -> Self {
        let scope = match &challenge {
            Challenge::Bearer(bearer) => bearer.scope.as_deref(),
            Challenge::Basic => None,
        };
        let split = scope.and_then(|scope| scope.split_once(name));
        let around = split.map(|(before, after)| (before.to_owned(), after.to_owned()));
        Self { challenge, around }
    }

    pub(super) fn scope(&self, name: &str) -> String {
        match &self.around {
            Some((before, after)) => format!("{before}{name}{after}"),
            None => challenge::pull(name),
        }
    }
}

impl Endpoint {
    pub(super) fn new(url: &Url, limits: &UpstreamLimits) -> Option<Self> {
        Some(Self {
            url: url.clone(),
            origin: Origin::of(url)?,
            gate: Gate::new(limits.connections, limits.waiting),
            tokens: Tokens::new(limits.tokens),
            circuits: Default::default(),
            budgets: Default::default(),
            known: Mutex::default(),
        })
    }

    pub(super) fn circuit(&self, part: Part) -> &Circuit {
        let [registry, token, cdn] = &self.circuits;
        match part {
            Part::Registry => registry,
            Part::Token => token,
            Part::Cdn => cdn,
        }
    }

    pub(super) fn budget(&self, identity: Identity) -> &Budget {
        let [configured, anonymous] = &self.budgets;
        match identity {
            Identity::Configured => configured,
            Identity::Anonymous => anonymous,
        }
    }

    pub(super) fn known(&self) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn learn(&self, known: Known) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }

    pub(super) fn state(&self) -> EndpointState {
        let health = |part| self.circuit(part).health();
        let (registry, token, cdn) = (health(Part::Registry), health(Part::Token), health(Part::Cdn));
        EndpointState { url: self.url.to_string(), registry, token, cdn }
    }
}

/// What the endpoints said together.
#[derive(Default)]
struct Outcome {
    is_absent: bool,
    denied: Option<Error>,
    fault: Option<Error>,
}

impl Outcome {
    fn failed(&mut self, error: Error) {
        let is_closed = |error: &Error| error.fault() == Fault::NoConnection(NoConnection::CircuitOpen);
        if error.fault() == Fault::Denied {
            self.denied.get_or_insert(error);
        } else if self.fault.as_ref().is_none_or(|earlier| is_closed(earlier) && !is_closed(&error)) {
            self.fault = Some(error);
        }
    }

    /// A refusal is an answer, so it outweighs a fault; a fault outweighs a 404.
    fn decide<T>(self, host: &str) -> Result<Option<T>, Error> {
        match (self.denied.or(self.fault), self.is_absent) {
            (Some(error), _) => Err(error),
            (None, true) => Ok(None),
            (None, false) => {
                let fault = Fault::NoConnection(NoConnection::CircuitOpen);
                Err(Error::new(fault, format!("no endpoint of {host} could be asked")))
            }
        }
    }
}

/// Makes an answer into what was asked for.
pub(super) type Parse<'a, T> = &'a (dyn Fn(Answer) -> Result<T, Error> + Send + Sync);

impl Core {
    /// Asks the endpoints in order until one has it.
    pub(super) async fn ask<T: Send>(
        self: &Arc<Self>,
        ask: &Ask,
        question: &Question,
        parse: Parse<'_, T>,
    ) -> Result<Option<T>, Error> {
        let now = Instant::now();
        let deadline = now + ask.within.map_or(self.limits.headers, |within| within.min(self.limits.headers));
        let is_cold = ask.priority == Priority::Client && ask.within.is_none();
        let mut outcome = Outcome::default();
        let mut asked: Vec<(usize, &Endpoint, Option<Probe<'_>>)> = Vec::new();
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            match endpoint.circuit(Part::Registry).admit(&endpoint.origin, is_cold, now) {
                Admission::Free => asked.push((at, endpoint, None)),
                Admission::Refused(error) => outcome.failed(error),
            }
        }
        if asked.is_empty() && is_cold {
            let mut all = self.endpoints.iter().enumerate();
            asked.extend(
                all.find_map(|(at, endpoint)| Some((at, endpoint, Some(endpoint.circuit(Part::Registry).probe(now)?)))),
            );
        }
        let count = asked.len();
        for (place, (at, endpoint, _probe)) in asked.into_iter().enumerate() {
            let others = place + 1 < count;
            // One that is silent leaves time for the next.
            let until = if others { Instant::now() + (deadline - Instant::now()) / 2 } else { deadline };
            // A delete whose answer got lost may have been done: whoever asked looks again.
            let once = others || question.right == Right::Delete;
            let tries = if once { 1 } else { TRIES };
            let mut session = Session::new(self, at, endpoint, ask, question, until, is_cold);
            match self.try_endpoint(&mut session, tries, parse).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => outcome.is_absent = true,
                Err(error) => outcome.failed(error),
            }
        }
        outcome.decide(&self.host)
    }

    async fn try_endpoint<T: Send>(
        self: &Arc<Self>,
        session: &mut Session<'_>,
        tries: u32,
        parse: Parse<'_, T>,
    ) -> Result<Option<T>, Error> {
        let (at, endpoint, question) = (session.at, session.endpoint, session.question);
        let mut count = 0;
        loop {
            count += 1;
            let failed = match session.run().await {
                Ok(Some(answer)) => {
                    let (part, origin) = (answer.part, answer.origin.clone());
                    match parse(answer) {
                        Ok(found) => {
                            self.succeeded(endpoint, Part::Registry, &endpoint.origin);
                            self.succeeded(endpoint, part, &origin);
                            return Ok(Some(found));
                        }
                        Err(error) => Failed { error, part, origin: Some(origin), counts: question.is_tag },
                    }
                }
                Ok(None) => {
                    self.succeeded(endpoint, Part::Registry, &endpoint.origin);
                    return Ok(None);
                }
                Err(failed) => failed,
            };
            if failed.error.fault() == Fault::Denied {
                self.succeeded(endpoint, Part::Registry, &endpoint.origin);
            }
            let rest = Duration::from_millis(fastrand::u64(BETWEEN_TRIES_MS));
            // Who was silent once costs the client as much again.
            let may_help = failed.error.retry() == Retry::Now && failed.error.fault() != Fault::TimedOut;
            if may_help && count < tries && Instant::now() + rest < session.deadline {
                tokio::time::sleep(rest).await;
                continue;
            }
            let is_soft = session.ask.within.is_some() && failed.error.fault() == Fault::TimedOut;
            if failed.counts {
                self.failed(at, &failed, is_soft);
            }
            return Err(failed.error);
        }
    }

    /// A part answered.
    pub(super) fn succeeded(&self, endpoint: &Endpoint, part: Part, origin: &Origin) {
        let was_unknown = endpoint.circuit(part).health() == Health::Unknown;
        let was_open = endpoint.circuit(part).succeed(origin);
        if was_open {
            tracing::info!(upstream = self.host, endpoint = %endpoint.origin, part = part.as_str(), "it answers again");
        }
        if was_open || was_unknown {
            self.show_health(part);
        }
    }

    /// A request's tries are used up: opens the circuit of that part, and looks after it until it answers.
    pub(super) fn failed(self: &Arc<Self>, at: usize, failed: &Failed, is_soft: bool) {
        let Some(endpoint) = self.endpoints.get(at) else { return };
        let Failed { error, part, origin, .. } = failed;
        // What failed is said by whoever asked, once; this is what follows from it.
        let failure = Failure { cause: error.clone(), origin: origin.clone(), is_soft, at: self.clock.now() };
        if endpoint.circuit(*part).fail(failure, Instant::now()) {
            let (at_endpoint, part_name) = (&endpoint.origin, part.as_str());
            tracing::info!(upstream = self.host, endpoint = %at_endpoint, part = part_name, "it fails; what is held is served");
            self.show_health(*part);
            self.watch(at, *part);
        }
    }

    fn show_health(&self, part: Part) {
        let is_up = |endpoint: &Endpoint| !matches!(endpoint.circuit(part).health(), Health::Down { .. });
        self.metrics.upstream_up(&self.host, part.as_str(), self.endpoints.iter().any(is_up));
    }
}
