//! Single flight: one asks, the others wait for the same answer.
//!
//! The asking is a task of its own, so that it does not end with the client that began it. It may publish its answer
//! before it is done (a manifest is served before its commit is durable); who comes in between gets the answer at once,
//! and nobody begins a second flight until the first is over.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::sync::watch;

use crate::tasks::Tasks;

/// Flights under way, by key. Cheap to clone.
///
/// There are never more than there are requests waiting and background jobs running, both of which are bounded.
pub(super) struct Flights<K, V> {
    under_way: UnderWay<K, V>,
    tasks: Tasks,
}

type UnderWay<K, V> = Arc<Mutex<HashMap<K, Flight<V>>>>;

/// One flight, as those who wait for it see it.
#[derive(Clone, Debug)]
struct Flight<V> {
    answer: watch::Receiver<Option<V>>,
    /// Closed when the flight is off the list.
    over: watch::Receiver<()>,
}

/// What a flight brought.
#[derive(Clone, Debug)]
pub(super) struct Landed<V> {
    /// The answer.
    pub(super) value: V,
    /// Whether somebody else had asked already (`collapsed` in RFC 9211).
    pub(super) collapsed: bool,
}

/// The flight ended without an answer: it panicked, or the process is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request that this one waited for ended without an answer")]
pub struct Lost;

/// Publishes the answer of a flight, once.
#[derive(Debug)]
pub(super) struct Publish<V>(watch::Sender<Option<V>>);

impl<V> Publish<V> {
    /// Gives `value` to everybody who waits.
    pub(super) fn send(&self, value: V) {
        self.0.send_replace(Some(value));
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// No flight is under way.
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { under_way: Arc::default(), tasks }
    }

    /// Waits for the flight of `key`; begins it with `ask` where there is none.
    pub(super) async fn join<F, A>(&self, key: K, ask: A) -> Result<Landed<V>, Lost>
    where
        A: FnOnce(Publish<V>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let (mut answer, collapsed) = self.begin(key, ask);
        let value = answer.wait_for(Option::is_some).await.map_err(|_| Lost)?.clone().ok_or(Lost)?;
        Ok(Landed { value, collapsed })
    }

    /// Begins the flight of `key` in the background where there is none.
    pub(super) fn start<F, A>(&self, key: K, ask: A)
    where
        A: FnOnce(Publish<V>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.begin(key, ask));
    }

    /// Waits until no flight of `key` is under way whose answer is there already: whoever joins then gets an answer that was
    /// not there when this was called. Tells whether there was one.
    pub(super) async fn over(&self, key: K) -> bool {
        let mut waited = false;
        loop {
            let flight = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
            let Some(mut flight) = flight.filter(|flight| flight.answer.borrow().is_some()) else { return waited };
            waited = true;
            // Nothing is ever sent: it ends when the flight is off the list.
            let _ = flight.over.changed().await;
        }
    }

    /// How many flights are under way.
    pub(super) fn count(&self) -> usize {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn begin<F, A>(&self, key: K, ask: A) -> (watch::Receiver<Option<V>>, bool)
    where
        A: FnOnce(Publish<V>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // One whose sender is gone without an answer panicked a moment ago: nobody should wait for it.
        let known = under_way.get(&key).map(|flight| &flight.answer);
        if let Some(answer) = known.filter(|a| a.borrow().is_some() || a.has_changed().is_ok()) {
            return (answer.clone(), true);
        }
        let (sender, answer) = watch::channel(None);
        let (ending, over) = watch::channel(());
        under_way.insert(key.clone(), Flight { answer: answer.clone(), over });
        drop(under_way);
        let over = Over { under_way: Arc::clone(&self.under_way), key, answer: answer.clone(), _ending: ending };
        let work = ask(Publish(sender));
        let (stopping, seen) = (self.tasks.stopping(), answer.clone());
        // Nobody waits for an answer when larder stops; what was answered is committed first.
        let given_up = async move {
            stopping.cancelled().await;
            if seen.borrow().is_some() {
                std::future::pending::<()>().await;
            }
        };
        self.tasks.spawn("flight", async move {
            let _over = over;
            tokio::select! {
                () = work => {}
                () = given_up => {}
            }
        });
        (answer, false)
    }
}

/// Takes a flight off the list when it is over, also when it panicked: else its key would wait for ever.
struct Over<K: Eq + Hash, V> {
    under_way: UnderWay<K, V>,
    key: K,
    answer: watch::Receiver<Option<V>>,
    /// Dropped after the flight is off the list.
    _ending: watch::Sender<()>,
}

impl<K: Eq + Hash, V> Drop for Over<K, V> {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.get(&self.key).is_some_and(|flight| flight.answer.same_channel(&self.answer)) {
            under_way.remove(&self.key);
        }
    }
}

impl<K, V> Clone for Flights<K, V> {
    fn clone(&self) -> Self {
        Self { under_way: Arc::clone(&self.under_way), tasks: self.tasks.clone() }
    }
}

impl<K, V> fmt::Debug for Flights<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn who_wants_an_answer_of_its_own_time_waits_for_the_old_flight_to_be_over() {
        let flights = Flights::new(Tasks::new());
        assert!(!flights.over("key").await, "there is none");
        let (land, landed) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel::<()>();
        let mut first = Box::pin(flights.join("key", |publish| async move {
            landed.await.unwrap();
            publish.send(1);
            ended.await.unwrap();
        }));
        tokio::select! {
            biased;
            _ = &mut first => panic!("there is no answer yet"),
            waited = flights.over("key") => assert!(!waited, "an answer that is not there yet is new enough"),
        }
        land.send(()).unwrap();
        assert_eq!(first.await.unwrap().value, 1);
        let mut over = Box::pin(flights.over("key"));
        assert!(futures_util::poll!(&mut over).is_pending());
        end.send(()).unwrap();
        assert!(over.await);
        let second = flights.join("key", |publish| async move { publish.send(2) }).await.unwrap();
        assert_eq!((second.value, second.collapsed), (2, false));
    }

    #[tokio::test]
    async fn many_who_ask_at_once_ask_once() {
        let flights = Flights::new(Tasks::new());
        let asked = Arc::new(AtomicUsize::new(0));
        let joins = (0..50).map(|_| {
            let (flights, asked) = (flights.clone(), Arc::clone(&asked));
            async move {
                let ask = |publish: Publish<u32>| async move {
                    asked.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    publish.send(7);
                };
                flights.join("key", ask).await.unwrap()
            }
        });
        let landed = futures_util::future::join_all(joins).await;
        assert!(landed.iter().all(|l| l.value == 7));
        assert_eq!(landed.iter().filter(|l| !l.collapsed).count(), 1);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn an_answer_is_there_before_the_flight_is_over() {
        let flights = Flights::new(Tasks::new());
        let (finish, finished) = oneshot::channel::<()>();
        let ask = |publish: Publish<u32>| async move {
            publish.send(1);
            finished.await.unwrap();
        };
        assert_eq!(flights.join("key", ask).await.unwrap().value, 1);
        let second = flights.join("key", |_| async { panic!("a second flight began") }).await.unwrap();
        assert!(second.collapsed);
        finish.send(()).unwrap();
    }

    #[tokio::test]
    async fn a_client_that_leaves_does_not_end_the_flight() {
        let tasks = Tasks::new();
        let flights = Flights::new(tasks.clone());
        let (go, gone) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel::<()>();
        let ask = |publish: Publish<u32>| async move {
            gone.await.unwrap();
            publish.send(1);
            done.send(()).unwrap();
        };
        let mut join = Box::pin(flights.join("key", ask));
        assert!(futures_util::poll!(&mut join).is_pending());
        drop(join);
        go.send(()).unwrap();
        is_done.await.unwrap();
        tasks.stop().await;
        assert_eq!(flights.count(), 0);
    }

    #[tokio::test]
    async fn a_flight_that_panics_is_lost_and_its_key_is_free_again() {
        let flights = Flights::<_, u32>::new(Tasks::new());
        assert!(matches!(flights.join("key", |_| async { panic!("on purpose") }).await, Err(Lost)));
        let again = flights.join("key", |publish| async move { publish.send(2) }).await;
        assert_eq!(again.unwrap().value, 2);
    }
}
