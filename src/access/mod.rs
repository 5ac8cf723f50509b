//! Who is asking, and what they may do.
//!
//! One function decides, [`Access::authorize`]; it answers with a [`Grant`], without which neither cache nor push can
//! be called. Bytes are shared between repositories, permission never is.

pub mod credentials;
pub mod grant;
pub mod principal;

pub use credentials::Credentials;
pub use grant::Grant;
pub use principal::Caller;
pub use principal::Principal;

pub use crate::config::Action;

use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::RepositoryKey;

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
    /// A credential could help and none, or none that is valid, was sent: 401 with [`Access::challenge`], the same
    /// whether the repository exists or not.
    #[error("not authenticated")]
    Unauthenticated,
    /// The client may not know whether the repository exists: to be answered exactly as one that does not.
    #[error("no right to pull")]
    Hidden,
    /// The client may see the repository and not do this.
    #[error("no right to do this")]
    Denied,
    /// Too many passwords are being checked; to be tried again soon.
    #[error("too many passwords are being checked")]
    Busy,
}

/// Decides who may do what.
#[derive(Debug)]
pub struct Access;

impl Access {
    /// Whether `caller` may do `action` with `target` of `repository`.
    ///
    /// # Errors
    ///
    /// Why not, as far as the client may learn it.
    pub async fn authorize(
        &self,
        _caller: &Caller,
        _action: Action,
        _repository: &RepositoryKey,
        _target: &Target,
    ) -> Result<Grant, Refusal> {
        Err(Refusal::Hidden)
    }

    /// Who `caller` is, for `GET /v2/` and login: with authentication configured, a valid credential is asked for.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthenticated`] or [`Refusal::Busy`].
    pub async fn authenticate(&self, _caller: &Caller) -> Result<Principal, Refusal> {
        Ok(Principal::Anonymous)
    }

    /// The value of `WWW-Authenticate` that goes with [`Refusal::Unauthenticated`].
    pub fn challenge(&self) -> &'static str {
        "Basic realm=\"larder\", charset=\"UTF-8\""
    }
}
