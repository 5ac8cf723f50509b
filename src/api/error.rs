//! What a client may learn of a failure: every error of the domain becomes a status, a code of the specification and a
//! sentence here, in total matches, so that a new kind of error does not compile until somebody decides.
//!
//! Answers of 5xx carry no internal text; the causes go to the log, once. "Unknown" and "not yours" are one answer.

use std::time::Duration;

use http::StatusCode;

use crate::access::Refusal;
use crate::cache;
use crate::forge;
use crate::oci::ErrorCode;
use crate::push;
use crate::repository::NameProblem;
use crate::repository::Refused;
use crate::retention;
use crate::retention::hosted;
use crate::store;
use crate::telemetry;
use crate::upstream;
use crate::upstream::Fault;
use crate::upstream::NoConnection;
use crate::views;
use crate::warm::missing;

use super::failure::Failure;
use super::failure::SOON;
use super::receive::Ended;
use super::route::Problem;

/// When there may be room for a run again: runs end by the minute at most.
const A_RUN_LATER: Duration = Duration::from_mins(1);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let bad = |code, message| Self::new(StatusCode::BAD_REQUEST, code, message);
        match problem {
            Problem::Nowhere => {
                Self::new(StatusCode::NOT_FOUND, ErrorCode::Unsupported, "there is nothing at this path")
            }
            Problem::Name => bad(ErrorCode::NameInvalid, "the name is not one of a repository"),
            Problem::Tag => bad(ErrorCode::ManifestInvalid, "the reference is neither a tag nor a digest"),
            Problem::Digest => bad(ErrorCode::DigestInvalid, "the digest is not one of sha256 or sha512"),
            Problem::TooLong => Self::new(
                StatusCode::URI_TOO_LONG,
                ErrorCode::Unsupported,
                "more tags are named than are taken at once",
            ),
            Problem::Query(_) => bad(ErrorCode::Unsupported, "a value of the query can't be meant"),
            Problem::Method(allow) => Self::method(allow),
        }
    }
}

impl From<NameProblem> for Failure {
    fn from(problem: NameProblem) -> Self {
        match problem {
            NameProblem::Unknown => Self::name_unknown(),
            NameProblem::Invalid => Problem::Name.into(),
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unknown => Self::name_unknown(),
            Refused::Denied => {
                Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, "the repository is not to be pulled through larder")
            }
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthenticated => Self::unauthenticated(),
            Refusal::Hidden => Self::name_unknown(),
            Refusal::Denied => Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, "there is no right to do this"),
            Refusal::Busy => {
                let message = "too many passwords are being checked";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message).later(Some(SOON))
            }
            Refusal::Unavailable(error) => Self::from(&error),
        }
    }
}

impl From<&upstream::Error> for Failure {
    fn from(error: &upstream::Error) -> Self {
        let gateway = |status, message| Self::new(status, ErrorCode::Unavailable, message);
        let wait = error.retry_after();
        let failure = match error.fault() {
            // Somebody answers, and not as the one that was asked for: a broken certificate, or a network in between.
            Fault::NoConnection(NoConnection::Tls) => {
                gateway(StatusCode::BAD_GATEWAY, "the upstream's TLS can't be used").later(wait)
            }
            Fault::NoConnection(_) => {
                gateway(StatusCode::SERVICE_UNAVAILABLE, "the upstream can't be reached").later(wait)
            }
            Fault::TimedOut => gateway(StatusCode::GATEWAY_TIMEOUT, "the upstream did not answer in time").later(wait),
            Fault::Status(503) => gateway(StatusCode::SERVICE_UNAVAILABLE, "the upstream is not available").later(wait),
            Fault::Status(_) => gateway(StatusCode::BAD_GATEWAY, "the upstream failed").later(wait),
            Fault::RateLimited => {
                let message = "the upstream's limit of requests is reached";
                Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, message).later(wait)
            }
            Fault::Unusable | Fault::AddressRefused => {
                gateway(StatusCode::BAD_GATEWAY, "the upstream's answer can't be used")
            }
            Fault::Broken => gateway(StatusCode::BAD_GATEWAY, "the transfer from the upstream broke off"),
            // Not the client's credential, so neither 401 nor 403.
            Fault::CredentialRefused => gateway(StatusCode::BAD_GATEWAY, "the upstream refused larder's credential"),
            Fault::Denied => Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, "the upstream denies access"),
            Fault::NotAllowed => return Refused::Denied.into(),
        };
        failure.because(error)
    }
}

impl From<&retention::Error> for Failure {
    fn from(error: &retention::Error) -> Self {
        // Whoever runs the server asks for plans, so the sentence may say all of it.
        let told = |status| Self::new(status, ErrorCode::Unsupported, telemetry::chain(error));
        match error {
            retention::Error::Store(error) => Self::from(error),
            retention::Error::TooMany { .. } | retention::Error::Json(_) => {
                told(StatusCode::INTERNAL_SERVER_ERROR).because(error)
            }
            retention::Error::Policy { .. } | retention::Error::Remote { .. } | retention::Error::Edited => {
                told(StatusCode::BAD_REQUEST)
            }
            retention::Error::Old { .. } | retention::Error::Blocked(_) => told(StatusCode::CONFLICT),
            retention::Error::Stopping => told(StatusCode::SERVICE_UNAVAILABLE).later(None),
        }
    }
}

impl From<missing::Error> for Failure {
    fn from(error: missing::Error) -> Self {
        // The matrix is the caller's own, so the sentence may say all of it.
        let bad =
            |error: &missing::Error| Self::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, error.to_string());
        match error {
            missing::Error::Matrix(_) | missing::Error::TooLong { .. } => bad(&error),
            missing::Error::Refused(refusal) => refusal.into(),
            missing::Error::Latest { problem, source } => {
                let failure = Self::from(*source);
                let message = format!("{problem}: {}", failure.message());
                failure.saying(message)
            }
            missing::Error::Leases { .. } => {
                let message = error.to_string();
                Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, message).later(Some(A_RUN_LATER))
            }
            missing::Error::Store(source) => Self::from(&source),
        }
    }
}

/// Whether the process may open no more files just now: that passes by itself.
fn is_out_of_files(error: &store::Error) -> bool {
    const NFILE: i32 = rustix::io::Errno::NFILE.raw_os_error();
    const MFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();
    let mut causes = std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source());
    causes.any(|cause| {
        let code = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        matches!(code, Some(NFILE | MFILE))
    })
}

impl From<&hosted::Error> for Failure {
    fn from(error: &hosted::Error) -> Self {
        match error {
            hosted::Error::Store(error) => error.into(),
            hosted::Error::TooMany { .. } => {
                let message = "there are more tags and manifests than are looked at: raise limits.plan_entries";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message)
            }
        }
    }
}

impl From<&store::Error> for Failure {
    fn from(error: &store::Error) -> Self {
        let unavailable =
            |message| Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message).later(None);
        let failure = match error {
            store::Error::Full(_) => unavailable("the store is full"),
            store::Error::ReadOnly(_) => unavailable("the store is read-only"),
            store::Error::Incomplete => unavailable("the index is being rebuilt"),
            store::Error::Closed => unavailable("larder is stopping"),
            store::Error::Missing { .. } => unavailable("bytes are missing from the store"),
            store::Error::Contended => unavailable("it is changed by others at the same time"),
            store::Error::Unlinked { digest } => {
                let message = "the manifest names what the repository does not have: push that first";
                let code = ErrorCode::ManifestBlobUnknown;
                return Self::new(StatusCode::BAD_REQUEST, code, message).about(digest);
            }
            store::Error::Fixed { tag } => {
                let message = "the tag is immutable: it is neither moved nor deleted";
                return Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message).about(tag);
            }
            store::Error::Named { by } => {
                return Self::method("GET, HEAD").saying("a manifest of the repository names it: delete that first").about(by);
            }
            store::Error::Tagged { tag } => {
                return Self::method("GET, HEAD").saying("a tag means it: delete the tag").about(tag);
            }
            error if is_out_of_files(error) => unavailable("too many files are open"),
            store::Error::Damaged { .. }
            | store::Error::Pushed { .. }
            | store::Error::Tree(_)
            | store::Error::Spool(_)
            | store::Error::Folder { .. }
            // These two stop a start; no request meets them.
            | store::Error::InUse { .. }
            | store::Error::Format { .. }
            | store::Error::Index(_) => Self::internal(),
        };
        failure.because(error)
    }
}

impl From<views::Error> for Failure {
    fn from(error: views::Error) -> Self {
        let full = |message| {
            let new = Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, message);
            new.later(Some(A_RUN_LATER))
        };
        let failure = match &error {
            views::Error::Runs { .. } => {
                full("there are as many runs as limits.runs allows; end one, or wait until one is over")
            }
            views::Error::Tags { .. } => full("the run saw as many tags as limits.run_tags allows; begin another run"),
            views::Error::Store(error) => return error.into(),
        };
        failure.because(&error)
    }
}

impl From<&forge::Error> for Failure {
    fn from(error: &forge::Error) -> Self {
        let later = |message| Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message).later(None);
        let unusable = |message| Self::new(StatusCode::BAD_GATEWAY, ErrorCode::Unavailable, message);
        let failure = match error {
            forge::Error::Unknown { .. } => return Problem::Nowhere.into(),
            forge::Error::Name { .. } => Self::bad_request("the repository can't be one of that forge"),
            forge::Error::Missing { .. } => unusable("the forge has no such repository, or does not show it"),
            forge::Error::Denied { .. } => unusable("the forge refused larder's token"),
            forge::Error::Answer { .. } => unusable("the forge's answer can't be used"),
            forge::Error::RateLimited { wait, .. } => later("the forge is asked too much").later(Some(*wait)),
            forge::Error::Fetch { .. } => later("the forge can't be reached"),
            forge::Error::Many { .. } => later("there is no room for another repository of that forge"),
            forge::Error::File { .. } | forge::Error::Empty { .. } => later("the file of branches can't be used"),
            forge::Error::State { source, .. } => return Self::from(&**source),
            // It stops a start; no request meets it.
            forge::Error::Setup { .. } => Self::internal(),
        };
        failure.because(error)
    }
}

impl From<cache::Error> for Failure {
    fn from(error: cache::Error) -> Self {
        let unknown = |code, message| Self::new(StatusCode::NOT_FOUND, code, message);
        let unusable = |message| Self::new(StatusCode::BAD_GATEWAY, ErrorCode::Unavailable, message);
        let later = |message| Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message);
        let failure = match &error {
            cache::Error::ManifestUnknown => return unknown(ErrorCode::ManifestUnknown, "the manifest is not known"),
            cache::Error::RepositoryUnknown => return Self::name_unknown(),
            cache::Error::BlobUnknown => return unknown(ErrorCode::BlobUnknown, "the blob is not known"),
            cache::Error::NoReferrers => {
                return unknown(ErrorCode::Unsupported, "the upstream has no list of referrers");
            }
            cache::Error::Refused(refused) => return (**refused).into(),
            cache::Error::Upstream(error) => return (&**error).into(),
            cache::Error::Store(error) => return (&**error).into(),
            cache::Error::Unsatisfiable { size } => return Self::unsatisfiable(*size),
            cache::Error::WrongBytes { .. } | cache::Error::WrongSize { .. } => {
                unusable("the upstream sent other bytes than were asked for")
            }
            cache::Error::NotAManifest(_) => unusable("the upstream's answer is not a manifest"),
            cache::Error::TooLarge { .. } => unusable("the blob is larger than the configuration allows"),
            cache::Error::BrokenOff(_) => unusable("the transfer from the upstream broke off"),
            cache::Error::Busy => later("too many transfers are under way").later(Some(SOON)),
            cache::Error::Lost(_) => later("the request ended without an answer").later(Some(SOON)),
        };
        failure.because(&error)
    }
}

impl From<Ended> for Failure {
    fn from(ended: Ended) -> Self {
        let failure = match &ended {
            Ended::Stalled => {
                let message = "the request's body did not go on";
                Self::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::BlobUploadInvalid, message)
            }
            Ended::Broken(_) => {
                Self::new(StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid, "the request's body broke off")
            }
        };
        failure.because(&ended)
    }
}

impl From<push::Error> for Failure {
    fn from(error: push::Error) -> Self {
        let bad = |code, message| Self::new(StatusCode::BAD_REQUEST, code, message);
        match &error {
            push::Error::NotHosted => Self::method("GET, HEAD"),
            push::Error::NotAManifest(why) => {
                bad(ErrorCode::ManifestInvalid, "the manifest can't be used").about(&telemetry::chain(why))
            }
            push::Error::WrongDigest { got } => {
                bad(ErrorCode::DigestInvalid, "the bytes are not those of the digest").about(got)
            }
            push::Error::UploadUnknown => {
                Self::new(StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown, "the upload is not known")
            }
            push::Error::Offset(_) => {
                let message = "the bytes do not begin where the upload has come to, or are not as many as was said";
                Self::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid, message)
            }
            push::Error::TooLarge { limit } => {
                let message = "the blob is larger than the configuration allows (limits.blob_bytes)";
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid, message).about(limit)
            }
            push::Error::TooManyUploads { limit } => {
                let message = "too many uploads are open; finish some, or give them up with DELETE";
                let failure = Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, message);
                failure.about(limit).later(None)
            }
            push::Error::Random => Self::internal().because(&error),
            push::Error::ManifestUnknown => cache::Error::ManifestUnknown.into(),
            push::Error::BlobUnknown => cache::Error::BlobUnknown.into(),
            push::Error::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::*;

    #[test]
    fn every_fault_of_an_upstream_has_its_status() {
        for (fault, status) in [
            (Fault::NoConnection(NoConnection::Dns), 503),
            (Fault::NoConnection(NoConnection::Connect), 503),
            (Fault::NoConnection(NoConnection::CircuitOpen), 503),
            (Fault::NoConnection(NoConnection::Tls), 502),
            (Fault::TimedOut, 504),
            (Fault::Status(500), 502),
            (Fault::Status(503), 503),
            (Fault::RateLimited, 429),
            (Fault::Unusable, 502),
            (Fault::CredentialRefused, 502),
            (Fault::Denied, 403),
            (Fault::NotAllowed, 403),
        ] {
            let failure = Failure::from(&upstream::Error::new(fault, "asking"));
            let response = failure.response();
            assert_eq!(response.status().as_u16(), status, "{fault:?}");
            let waits = response.headers().contains_key(http::header::RETRY_AFTER);
            assert!(waits || !matches!(status, 429 | 503), "{fault:?}");
        }
    }

    #[test]
    fn a_lack_of_files_passes_and_another_fault_is_ours() {
        for (source, status) in [
            (Error::from(rustix::io::Errno::MFILE), StatusCode::SERVICE_UNAVAILABLE),
            (Error::from(rustix::io::Errno::NFILE), StatusCode::SERVICE_UNAVAILABLE),
            (Error::from(rustix::io::Errno::IO), StatusCode::INTERNAL_SERVER_ERROR),
        ] {
            let error = store::Error::Folder { doing: "opening a blob".into(), source };
            assert_eq!(Failure::from(&error).response().status(), status, "{error:?}");
        }
    }
}
