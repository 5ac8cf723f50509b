//! The one thread that writes. redb has one lock for writers, held across the wait for the disk; so that nobody on the
//! runtime waits for it, changes queue up here and share transactions.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use ::redb::Durability;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::store::index::Change;
use crate::store::index::Error;
use crate::store::index::Identity;
use crate::store::index::Intent;
use crate::store::index::IntentId;
use crate::store::index::Moment;
use crate::store::index::Result;
use crate::store::index::Totals;
use crate::store::index::Verdict;
use crate::store::tree::BlobKey;

use super::database::Shared;
use super::tables::Tables;
use super::tables::failed;

/// Changes that share a transaction at most: a read of what was just written never waits for more than this.
const CHANGES_MAX: usize = 256;

/// What can be asked of the writer.
#[derive(Debug)]
pub(super) enum Job {
    Begin(IntentId, Intent),
    Apply(Option<IntentId>, Vec<Change>),
    /// Rows of a rebuild.
    Fill(Vec<Change>),
    Condemn(BlobKey),
    Bury(BlobKey),
    Touch(Vec<Moment>),
    Identify(Identity),
    Clear,
}

/// What it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Verdict(Verdict),
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) job: Job,
    pub(super) answer: oneshot::Sender<Result<Answer>>,
}

/// Where requests come from: those that somebody waits for before those that nobody does.
#[derive(Debug)]
pub(super) struct Queues {
    pub(super) urgent: mpsc::Receiver<Request>,
    pub(super) patient: mpsc::Receiver<Request>,
}

impl Queues {
    /// Waits for work; none when everybody who could ask is gone.
    async fn next(&mut self) -> Option<(Request, bool)> {
        tokio::select! {
            biased;
            Some(request) = self.urgent.recv() => Some((request, true)),
            Some(request) = self.patient.recv() => Some((request, false)),
            else => None,
        }
    }

    /// A group of requests that share a transaction. What nobody waits for gets one of its own, bounded by its sender.
    fn group(&mut self, runtime: &Handle) -> Option<Vec<Request>> {
        let (first, urgent) = runtime.block_on(self.next())?;
        let mut changes = weight(&first.job);
        let mut group = vec![first];
        while urgent && changes < CHANGES_MAX {
            let Ok(request) = self.urgent.try_recv() else { break };
            changes += weight(&request.job);
            group.push(request);
        }
        Some(group)
    }
}

fn weight(job: &Job) -> usize {
    match job {
        Job::Apply(_, changes) | Job::Fill(changes) => changes.len().max(1),
        Job::Touch(moments) => moments.len().max(1),
        Job::Begin(..) | Job::Condemn(_) | Job::Bury(_) | Job::Identify(_) => 1,
        // Nothing shares a transaction with a file that is thrown away.
        Job::Clear => CHANGES_MAX,
    }
}

/// Works until everybody who could ask is gone.
pub(super) fn run(shared: &Arc<Shared>, mut queues: Queues, runtime: &Handle) {
    while let Some(group) = queues.group(runtime) {
        let (jobs, answers): (VecDeque<_>, Vec<_>) = group.into_iter().map(|r| (r.job, r.answer)).unzip();
        match attempt(shared, &jobs) {
            Ok(done) => {
                if done.rides {
                    shared.riding().board(jobs);
                }
                for (answer, outcome) in answers.into_iter().zip(done.answers) {
                    // Whoever asked may be gone; the work is done all the same.
                    drop(answer.send(Ok(outcome)));
                }
            }
            Err(error) => {
                // Before the answers: who is told of the fault finds the index open again.
                shared.recover(&error);
                for answer in answers {
                    drop(answer.send(Err(error.clone())));
                }
            }
        }
    }
    shared.close();
}

/// A transaction that was made.
struct Done {
    answers: Vec<Answer>,
    /// Whether it did not wait for the disk.
    rides: bool,
}

/// One transaction. A panic in redb is what damage of a file looks like there.
fn attempt(shared: &Arc<Shared>, jobs: &VecDeque<Job>) -> Result<Done> {
    if jobs.iter().any(|job| matches!(job, Job::Clear)) {
        let (clear, rest): (Vec<_>, Vec<_>) = jobs.iter().partition(|job| matches!(job, Job::Clear));
        let mut answers = if rest.is_empty() { Vec::new() } else { commit(shared, &rest, false)?.answers };
        shared.recreate()?;
        answers.extend(clear.iter().map(|_| Answer::Done));
        return Ok(Done { answers, rides: false });
    }
    let jobs: Vec<_> = jobs.iter().collect();
    let rides = shared.riding().takes(&jobs);
    std::panic::catch_unwind(AssertUnwindSafe(|| commit(shared, &jobs, rides)))
        .unwrap_or_else(|_| Err(Error::Damaged("writing it panicked".into())))
}

fn commit(shared: &Arc<Shared>, jobs: &[&Job], rides: bool) -> Result<Done> {
    let database = shared.writable()?;
    if shared.riding().lost && jobs.iter().any(|job| needs_all_rows(job)) {
        return Err(Error::Lost);
    }
    let mut transaction = database.begin_write().map_err(failed)?;
    let durability = if rides { Durability::None } else { Durability::Immediate };
    transaction.set_durability(durability).map_err(failed)?;
    // Without it a crash means that the next start reads the whole file. What rides leaves the file as it is.
    transaction.set_quick_repair(!rides);
    let (answers, totals) = changed(&transaction, jobs)?;
    transaction.commit().map_err(failed)?;
    shared.count(totals);
    if !rides {
        shared.riding().arrive();
    }
    Ok(Done { answers, rides })
}

/// Whether it makes no sense where rows of the rebuild were lost.
fn needs_all_rows(job: &Job) -> bool {
    matches!(job, Job::Fill(_) | Job::Identify(Identity { complete: true, .. }))
}

fn changed(transaction: &::redb::WriteTransaction, jobs: &[&Job]) -> Result<(Vec<Answer>, Totals)> {
    let mut tables = Tables::open(transaction)?;
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs {
        answers.push(perform(&mut tables, job)?);
    }
    Ok((answers, tables.finish()?))
}

fn perform(tables: &mut Tables<'_>, job: &Job) -> Result<Answer> {
    match job {
        Job::Begin(id, intent) => tables.begin(*id, intent)?,
        Job::Apply(id, changes) => {
            for change in changes {
                tables.apply(change)?;
            }
            if let Some(id) = id {
                tables.clear_intent(*id)?;
            }
        }
        Job::Fill(changes) => {
            for change in changes {
                tables.apply(change)?;
            }
        }
        Job::Condemn(key) => return tables.condemn(key).map(Answer::Verdict),
        Job::Bury(key) => tables.bury(key)?,
        Job::Touch(moments) => {
            for moment in moments {
                tables.touch(moment)?;
            }
        }
        Job::Identify(identity) => tables.identify(identity)?,
        Job::Clear => {}
    }
    Ok(Answer::Done)
}
