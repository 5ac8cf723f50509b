//! Transactions that did not wait for the disk: they ride on the next one that does.
//!
//! What completes a commit may ride. Its intent is on disk: after a crash the next start finds it and does the same from
//! the tree. Whatever changes the tree after it begins with an intent of its own, and that waits for the disk, for both.
//! While the process runs, a file that is opened anew has lost what rode, and is told it again before anybody reads it.
//!
//! The rows of a rebuild ride too, and are told by nobody twice: a rebuild that lost some does not end.

use crate::store::index::Change;
use crate::store::index::IntentId;
use crate::store::index::Result;

use super::tables::Tables;
use super::writer::Job;

/// Rows that are kept for a file that must be told again; with more of them the next transaction waits for the disk.
const ROWS_MAX: usize = 4096;

/// Rows of a rebuild that may ride: the next commit's intent waits until they are on disk, too.
const FILLED_MAX: usize = 50_000;

/// What rides.
#[derive(Debug, Default)]
pub(super) struct Riding {
    commits: Vec<(IntentId, Vec<Change>)>,
    rows: usize,
    /// Rows of a rebuild that ride.
    filled: usize,
    /// Whether rows of a rebuild were lost: none is complete before the file is made anew.
    pub(super) lost: bool,
}

impl Riding {
    /// Whether a transaction of these jobs need not wait for the disk.
    pub(super) fn takes(&self, jobs: &[&Job]) -> bool {
        self.rows < ROWS_MAX
            && self.filled < FILLED_MAX
            && jobs.iter().all(|job| matches!(job, Job::Apply(Some(_), _) | Job::Fill(_)))
    }

    /// These jobs are done and ride.
    pub(super) fn board(&mut self, jobs: impl IntoIterator<Item = Job>) {
        for job in jobs {
            match job {
                Job::Apply(Some(id), changes) => {
                    self.rows += changes.len().max(1);
                    self.commits.push((id, changes));
                }
                Job::Fill(changes) => self.filled += changes.len().max(1),
                _ => {}
            }
        }
    }

    /// A transaction waited for the disk, and all that rode is there.
    pub(super) fn arrive(&mut self) {
        *self = Self { lost: self.lost, ..Self::default() };
    }

    /// The file was closed after a fault.
    pub(super) fn fall(&mut self) {
        self.lost |= std::mem::take(&mut self.filled) > 0;
    }

    /// Tells a file that was opened anew what it lost.
    pub(super) fn replay(&self, tables: &mut Tables<'_>) -> Result<()> {
        for (id, changes) in &self.commits {
            for change in changes {
                tables.apply(change)?;
            }
            tables.clear_intent(*id)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::Redb;
    use super::*;
    use crate::clock::Timestamp;
    use crate::config::store::Durability;
    use crate::oci::Digest;
    use crate::oci::RepositoryKey;
    use crate::store::index::Error;
    use crate::store::index::Identity;
    use crate::store::index::Index as _;
    use crate::store::index::Intent;
    use crate::store::tree::Kind;
    use crate::store::tree::LinkRecord;
    use crate::store::tree::Origin;
    use crate::store::tree::Standing;
    use crate::tasks::Tasks;

    fn open(folder: &tempfile::TempDir, name: &str) -> Redb {
        let path = folder.path().join(name);
        let options = Options { path, durability: Durability::Strict, queue: 16, cache_bytes: 1 << 20 };
        Redb::open(options, &Tasks::new()).unwrap()
    }

    fn of() -> RepositoryKey {
        RepositoryKey::from_path("docker.io/library/alpine").unwrap()
    }

    fn link(digest: Digest) -> Change {
        let kind = Kind::Blob;
        let record = LinkRecord {
            digest,
            generation: 0,
            size: 1,
            kind,
            origin: Origin::Proxied,
            at: Timestamp(1),
            standing: Standing::default(),
        };
        Change::Link { of: of(), record, facts: None }
    }

    fn fault() -> Error {
        Error::from(::redb::Error::Io(std::io::Error::other("a fault")))
    }

    fn complete() -> Identity {
        Identity { complete: true, ..Identity::default() }
    }

    #[tokio::test]
    async fn what_completes_a_commit_rides_and_its_intent_is_in_the_file_until_it_arrives() {
        let folder = tempfile::tempdir().unwrap();
        let (index, digest) = (open(&folder, "a"), Digest::of(b"a"));
        let intent = Intent { of: of(), steps: Vec::new() };
        let id = index.begin(intent.clone()).await.unwrap();
        index.apply(Some(id), vec![link(digest)]).await.unwrap();
        assert!(index.link(&of(), &digest).await.unwrap().is_some(), "it is seen at once");
        std::fs::copy(folder.path().join("a"), folder.path().join("b")).unwrap();
        let killed = open(&folder, "b");
        assert_eq!(killed.intents().await.unwrap(), [(id, intent.clone())]);
        assert!(killed.link(&of(), &digest).await.unwrap().is_none());
        // The next commit's intent takes it along.
        index.begin(intent.clone()).await.unwrap();
        std::fs::copy(folder.path().join("a"), folder.path().join("c")).unwrap();
        let killed = open(&folder, "c");
        assert_eq!(killed.intents().await.unwrap().len(), 1);
        assert!(killed.link(&of(), &digest).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_file_that_is_opened_anew_is_told_what_rode() {
        let folder = tempfile::tempdir().unwrap();
        let (index, digest) = (open(&folder, "a"), Digest::of(b"a"));
        let id = index.begin(Intent { of: of(), steps: Vec::new() }).await.unwrap();
        index.apply(Some(id), vec![link(digest)]).await.unwrap();
        // As it is without room: whatever closing it would write is lost.
        let path = folder.path().join("a");
        let bytes = std::fs::read(&path).unwrap();
        *index.shared.database.write().unwrap() = None;
        std::fs::write(&path, bytes).unwrap();
        index.shared.recover(&fault());
        assert!(index.link(&of(), &digest).await.unwrap().is_some());
        assert_eq!(index.intents().await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_rebuild_that_lost_rows_does_not_end() {
        let folder = tempfile::tempdir().unwrap();
        let (index, digest) = (open(&folder, "a"), Digest::of(b"a"));
        index.fill_in(vec![link(digest)]).await.unwrap();
        index.shared.recover(&fault());
        assert!(matches!(index.fill_in(vec![link(digest)]).await, Err(Error::Lost)));
        assert!(matches!(index.identify(complete()).await, Err(Error::Lost)));
        index.identify(Identity::default()).await.unwrap();
        index.clear().await.unwrap();
        index.fill_in(vec![link(digest)]).await.unwrap();
        index.identify(complete()).await.unwrap();
        assert!(index.link(&of(), &digest).await.unwrap().is_some());
    }
}
