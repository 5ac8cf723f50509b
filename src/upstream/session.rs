//! One call at one endpoint: what it shows to the upstream, and what it does when that is refused.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::net::address::Origin;

use super::Ask;
use super::Error;
use super::Fault;
use super::Identity;
use super::challenge;
use super::challenge::Bearer;
use super::challenge::Challenge;
use super::circuit::Admission;
use super::circuit::Part;
use super::credential::Login;
use super::endpoints::Core;
use super::endpoints::Endpoint;
use super::endpoints::Known;
use super::exchange::Failed;
use super::exchange::Question;
use super::exchange::Right;
use super::token::Key;
use super::token::Token;

/// Requests to the token service of one call.
const TOKEN_REQUESTS_MAX: u32 = 2;

/// A token younger than this may be refused because clocks differ (docker/hub-feedback#647: a brand-new token rejected).
const TOKEN_YOUNG: Duration = Duration::from_secs(5);

/// How long such a token is given.
const TOKEN_PATIENCE: Duration = Duration::from_secs(1);

/// Answers of 401 and 403 in one call: one that asks for a password and a token in turns must come to an end.
const REFUSALS_MAX: u32 = 6;

/// One call at one endpoint.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) at: usize,
    pub(super) endpoint: &'a Endpoint,
    pub(super) ask: &'a Ask,
    pub(super) question: &'a Question,
    pub(super) deadline: Instant,
    pub(super) is_cold: bool,
    pub(super) sent: Sent,
    /// Whether the last answer came from a registry's API, wherever that lies: its 404 counts.
    pub(super) is_registry: bool,
    refusals: u32,
    token_requests: u32,
    waits: u32,
    renewals: u32,
}

/// What was shown to the upstream.
#[derive(Debug)]
pub(super) enum Sent {
    Nothing,
    Basic { login: Arc<Login>, value: HeaderValue },
    Token { token: Token, key: Box<Key>, is_new: bool },
}

impl<'a> Session<'a> {
    pub(super) fn new(
        core: &'a Arc<Core>,
        at: usize,
        endpoint: &'a Endpoint,
        ask: &'a Ask,
        question: &'a Question,
        deadline: Instant,
        is_cold: bool,
    ) -> Self {
        Self {
            core,
            at,
            endpoint,
            ask,
            question,
            deadline,
            is_cold,
            sent: Sent::Nothing,
            is_registry: true,
            refusals: 0,
            token_requests: 0,
            waits: 0,
            renewals: 0,
        }
    }

    /// Shows at once what the endpoint wanted to see last.
    pub(super) async fn prepare(&mut self) -> Result<(), Failed> {
        if !matches!(self.sent, Sent::Nothing) {
            return Ok(());
        }
        match self.endpoint.known() {
            None => Ok(()),
            Some(Known { challenge: Challenge::Basic, .. }) => {
                if let Some(login) = self.login().await? {
                    self.show(login);
                }
                Ok(())
            }
            Some(known) => {
                let scope = self.scope(Some(&known));
                let Challenge::Bearer(bearer) = known.challenge else { return Ok(()) };
                self.take_token(&bearer, scope).await
            }
        }
    }

    /// What to show after a 401 or 403; an error where nothing is left.
    pub(super) async fn reauthorize(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<(), Failed> {
        self.refusals += 1;
        if self.refusals > REFUSALS_MAX {
            return Err(self.denied());
        }
        let challenge = challenge::read(headers);
        // What a delete or the catalog needs says nothing of the next pull.
        if let (Some(challenge), Right::Pull | Right::Beside) = (&challenge, self.question.right) {
            self.endpoint.learn(Known::new(challenge.clone(), self.ask.name.as_str()));
        }
        if status == StatusCode::FORBIDDEN {
            return self.after_forbidden().await;
        }
        match challenge {
            Some(Challenge::Bearer(bearer)) => self.after_bearer(&bearer).await,
            Some(Challenge::Basic) => self.after_basic().await,
            None => Err(self.denied()),
        }
    }

    /// 403: final, but for what ran out. ECR says it of an expired password.
    async fn after_forbidden(&mut self) -> Result<(), Failed> {
        if !self.renews_first() {
            return Err(self.denied());
        }
        match &self.sent {
            Sent::Basic { login, .. } if self.core.credentials.is_renewable() => {
                let old = Arc::clone(login);
                self.renew_login(&old).await?.ok_or_else(|| self.denied())
            }
            Sent::Token { key, is_new: false, .. } => {
                let key = Key::clone(key);
                self.renew_token(key).await
            }
            _ => Err(self.denied()),
        }
    }

    async fn after_bearer(&mut self, bearer: &Bearer) -> Result<(), Failed> {
        let scope = bearer.scope.clone().unwrap_or_else(|| self.scope(None));
        let Sent::Token { token, key, .. } = &self.sent else {
            return self.take_token(bearer, scope).await;
        };
        if key.scope != scope && self.renewals == 0 {
            self.renewals += 1;
            return self.take_token(bearer, scope).await;
        }
        if bearer.error.as_deref() == Some("insufficient_scope") {
            return Err(self.denied());
        }
        if token.since.elapsed() < TOKEN_YOUNG && self.waits == 0 {
            self.waits += 1;
            tokio::time::sleep_until(self.deadline.min(Instant::now() + TOKEN_PATIENCE)).await;
            return Ok(());
        }
        let key = Key::clone(key);
        if !self.renews_first() {
            return Err(self.denied());
        }
        self.renew_token(key).await
    }

    async fn after_basic(&mut self) -> Result<(), Failed> {
        let Sent::Basic { login, .. } = &self.sent else {
            let login = self.login().await?.ok_or_else(|| self.denied())?;
            self.show(login);
            return if matches!(self.sent, Sent::Basic { .. }) { Ok(()) } else { Err(self.denied()) };
        };
        let login = Arc::clone(login);
        if self.renews_first() && self.core.credentials.is_renewable() && self.renew_login(&login).await?.is_some() {
            return Ok(());
        }
        self.core.credential_refused(&login);
        let message = format!("{} refused the configured credential", self.endpoint.origin.host());
        Err(Failed::uncounted(Error::new(Fault::CredentialRefused, message), Part::Registry))
    }

    /// Looks the credential up anew; `None` where it is the same.
    async fn renew_login(&mut self, old: &Login) -> Result<Option<()>, Failed> {
        self.core.credentials.renew().await;
        let Some(login) = self.login().await?.filter(|login| **login != *old) else { return Ok(None) };
        self.show(login);
        Ok(Some(()))
    }

    async fn renew_token(&mut self, key: Key) -> Result<(), Failed> {
        if let Sent::Token { token, .. } = &self.sent {
            self.endpoint.tokens.forget(&key, token);
        }
        let bearer = Bearer { realm: key.realm.to_string(), service: key.service, ..Bearer::default() };
        self.take_token(&bearer, key.scope).await
    }

    fn show(&mut self, login: Arc<Login>) {
        if let Some(value) = login.basic() {
            self.sent = Sent::Basic { login, value };
        }
    }

    async fn login(&self) -> Result<Option<Arc<Login>>, Failed> {
        if self.ask.identity == Identity::Anonymous {
            return Ok(None);
        }
        let found = timeout_at(self.deadline, self.core.credentials.get()).await;
        let late = || Error::new(Fault::CredentialRefused, "getting the credential took too long");
        found.unwrap_or_else(|_| Err(late())).map_err(|error| Failed::uncounted(error, Part::Token))
    }

    async fn take_token(&mut self, bearer: &Bearer, scope: String) -> Result<(), Failed> {
        let realm = self.core.realms.check(&self.endpoint.url, &bearer.realm).map_err(|refusal| {
            let message = format!("{} names a token service that is not asked", self.endpoint.origin.host());
            Failed::uncounted(Error::new(Fault::Unusable, message).caused_by(refusal), Part::Token)
        })?;
        loop {
            let login = self.login().await?;
            let key = Key::new(realm.clone(), bearer.service.clone(), scope.clone(), login.as_deref());
            if let Some(token) = self.endpoint.tokens.get(&key) {
                self.sent = Sent::Token { token, key: Box::new(key), is_new: false };
                return Ok(());
            }
            match self.fetch(&key, login.clone()).await {
                Ok(token) => {
                    self.sent = Sent::Token { token, key: Box::new(key), is_new: true };
                    return Ok(());
                }
                // A helper's password may have run out; what it says now may do.
                Err(failed) if failed.error.fault() == Fault::CredentialRefused && self.can_renew() => {
                    self.core.credentials.renew().await;
                    let renewed = self.login().await?;
                    if renewed == login {
                        return Err(failed);
                    }
                }
                Err(failed) => return Err(failed),
            }
        }
    }

    /// Whether nothing was shown anew yet; from now on something was.
    fn renews_first(&mut self) -> bool {
        self.renewals += 1;
        self.renewals == 1
    }

    fn can_renew(&self) -> bool {
        self.core.credentials.is_renewable() && self.token_requests < TOKEN_REQUESTS_MAX
    }

    async fn fetch(&mut self, key: &Key, login: Option<Arc<Login>>) -> Result<Token, Failed> {
        if self.token_requests >= TOKEN_REQUESTS_MAX {
            return Err(self.denied());
        }
        self.token_requests += 1;
        let circuit = self.endpoint.circuit(Part::Token);
        let origin = Origin::of(&key.realm).unwrap_or_else(|| self.endpoint.origin.clone());
        let mut probe = None;
        if let Admission::Refused(error) = circuit.admit(&origin, self.is_cold, Instant::now()) {
            probe = if self.is_cold { circuit.probe(Instant::now()) } else { None };
            if probe.is_none() {
                return Err(Failed::uncounted(error, Part::Token));
            }
        }
        let flight = self.core.flight(self.at, self.endpoint, key, login);
        let taken = timeout_at(self.deadline, flight).await;
        drop(probe);
        taken.unwrap_or_else(|_| {
            let message = format!("asking {} for a token: it did not answer in time", origin.host());
            Err(Failed::new(Error::new(Fault::TimedOut, message), Part::Token))
        })
    }

    /// The scope that the question needs, as far as it can be known before the endpoint says so.
    fn scope(&self, known: Option<&Known>) -> String {
        let name = self.ask.name.as_str();
        match (self.question.right, known) {
            (Right::Delete, _) => challenge::delete(name),
            (Right::Catalog, _) => challenge::CATALOG.to_owned(),
            (Right::Pull | Right::Beside, Some(known)) => known.scope(name),
            (Right::Pull | Right::Beside, None) => challenge::pull(name),
        }
    }

    fn denied(&self) -> Failed {
        let (host, name) = (self.endpoint.origin.host(), &self.ask.name);
        let message = match self.question.right {
            Right::Pull | Right::Beside => format!("{host} does not allow us {name}"),
            Right::Delete => format!("{host} does not allow us to delete in {name}"),
            Right::Catalog => format!("{host} does not allow us its list of repositories"),
        };
        Failed::uncounted(Error::new(Fault::Denied, message), Part::Registry)
    }
}
