//! Damaged bytes: what came from an upstream is forgotten, so that the next pull fetches it; what was pushed is an error
//! until it is pushed again.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::oci::Digest;
use crate::oci::RepositoryKey;

use super::BlobKey;
use super::Drop;
use super::Error;
use super::Held;
use super::Inner;
use super::LinkRecord;
use super::Origin;
use super::Result;
use super::index::Change;
use super::names::Name;

/// Digests that are remembered as told; beyond it some are told twice.
const REPORTED_MAX: usize = 10_000;

/// Damage that was told: once in the log, and once in the metric.
#[derive(Debug, Default)]
pub(super) struct Reported(Mutex<HashSet<Digest>>);

impl Reported {
    fn is_news(&self, digest: Digest) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= REPORTED_MAX {
            told.clear();
        }
        told.insert(digest)
    }

    /// The bytes were stored anew: if they are damaged again, that is news.
    pub(super) fn mended(&self, digest: &Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }
}

fn report(store: &Inner, digest: Digest) {
    if store.reported.is_news(digest) {
        store.metrics.scrub_failure();
        tracing::error!(%digest, "stored bytes are damaged");
    }
}

/// Bytes that a lookup found damaged. What came from an upstream is as if it had never been fetched, in any repository: the
/// next that links the digest stores it anew.
pub(super) async fn damaged(store: &Inner, of: &RepositoryKey, link: &LinkRecord) -> Result<Option<Arc<Held>>> {
    report(store, link.digest);
    let marked = store.index.apply(None, vec![Change::Damaged { key: link.blob() }]).await.map_err(Error::from);
    if link.origin == Origin::Pushed || of.is_hosted() {
        return Err(Error::Damaged { digest: link.digest });
    }
    let forgotten = match marked {
        Ok(()) => forget(store, of, link).await,
        failed => failed,
    };
    match forgotten {
        // It is not served all the same.
        Err(error) if !error.is_of_room() => Err(error),
        _ => Ok(None),
    }
}

/// Forgets a link to damaged bytes, unless it was mended meanwhile.
async fn forget(store: &Inner, of: &RepositoryKey, link: &LinkRecord) -> Result<()> {
    let name = [Name::Digest(link.digest)];
    let _gate = store.gate.pass().await;
    let _locked = store.names.lock(of, &name).await;
    if store.tree.link(of, &link.digest).await?.as_ref() != Some(link) {
        return Ok(());
    }
    store.tree.drop_link(of, &link.digest).await?;
    store.index.apply(None, vec![Change::DropLink { of: of.clone(), digest: link.digest }]).await?;
    store.hot.forget(of, &link.digest);
    Ok(())
}

/// Takes damaged bytes out of use in every repository. It is told when that is done.
pub(super) async fn quarantine(store: &Arc<Inner>, key: &BlobKey) -> Result<()> {
    let done = take_out_of_use(store, key).await;
    report(store, key.digest);
    done
}

async fn take_out_of_use(store: &Arc<Inner>, key: &BlobKey) -> Result<()> {
    store.index.apply(None, vec![Change::Damaged { key: *key }]).await?;
    store.hot.forget_everywhere(&key.digest);
    for of in store.holders(key, usize::MAX).await? {
        let Some(link) = store.link(&of, &key.digest).await? else { continue };
        if link.origin == Origin::Proxied && !of.is_hosted() && link.blob() == *key {
            super::collect::evict(store, of, vec![Drop::Link(key.digest)]).await?;
        }
    }
    Ok(())
}
