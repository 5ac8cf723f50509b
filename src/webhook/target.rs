//! One target: its queue, and the deliveries one after the other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::header;
use quick_cache::sync::Cache as Bounded;
use tokio::sync::mpsc;
use tokio::time::Instant;
use url::Url;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config::EventName;
use crate::config::Notify;
use crate::events::Event;
use crate::net::fetch;
use crate::net::fetch::Fetch;
use crate::net::fetch::FetchSettings;
use crate::telemetry::Metrics;

use super::Deps;
use super::Error;

/// Causes that are remembered so that they are not told again.
const CAUSES_MAX: usize = 1_000;

/// Bytes of an answer that are read; what it says does not matter.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// From the look-up of a name to an open connection.
const CONNECT: Duration = Duration::from_secs(5);

/// The pause after the first try; each further one is so many times as long, up to the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_GROWS: u32 = 4;
const PAUSE_MAX: Duration = Duration::from_mins(5);

/// What a target is.
#[derive(Debug)]
pub(super) struct Settings {
    notify: Notify,
    fetch: Fetch,
}

/// A target. Its deliveries end when it is dropped, once its queue is empty.
#[derive(Debug)]
pub(super) struct Target {
    settings: Arc<ArcSwap<Settings>>,
    queue: mpsc::Sender<Delivery>,
    told: Told,
}

/// What was told, and when.
type Told = Arc<Bounded<Cause, Instant>>;

/// The same about the same thing.
type Cause = (EventName, String);

#[derive(Debug)]
struct Delivery {
    event: Event,
    at: Timestamp,
}

/// How a try ended.
enum Tried {
    Done,
    /// It may do later; not before so long, where the target says so.
    Again(String, Option<Duration>),
    /// It never will.
    Refused(String),
}

impl Settings {
    pub(super) fn new(notify: &Notify, deps: &Deps) -> Result<Self, Error> {
        let settings = FetchSettings {
            written: notify.url.reveal().parse().into_iter().collect(),
            may_connect_to: Vec::new(),
            ca_file: notify.ca_file.clone(),
            proxy: notify.proxy.clone(),
            connect: CONNECT,
            timeout: notify.timeout,
            body_max: ANSWER_BYTES_MAX,
        };
        let fetch = Fetch::new(&deps.trust, settings);
        let fetch = fetch.map_err(|source| Error { file: notify.file.clone(), source })?;
        Ok(Self { notify: notify.clone(), fetch })
    }

    /// Sends it once.
    async fn send(&self, delivery: &Delivery, clock: &Clock) -> Tried {
        let mut request = Request::new(document(delivery));
        *request.method_mut() = Method::POST;
        let url = Url::parse(self.notify.url.reveal()).ok();
        let Some(uri) = url.and_then(|url| url.as_str().parse().ok()) else {
            return Tried::Refused("its URL is no URI".to_owned());
        };
        *request.uri_mut() = uri;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = match self.fetch.send(request).await {
            Ok(answer) => answer,
            // Its status has come by then: it was taken.
            Err(fetch::Error::Large { .. } | fetch::Error::Encoded { .. }) => {
                return Tried::Done;
            }
            Err(error) => return Tried::Again(crate::telemetry::chain(&error), None),
        };
        let said = format!("it answered {}", answer.status.as_u16());
        match answer.status.as_u16() {
            200..=299 => Tried::Done,
            408 | 425 | 429 | 500.. => Tried::Again(said, answer.retry_after(clock.now())),
            _ => Tried::Refused(said),
        }
    }
}

impl Target {
    /// Starts its deliveries.
    pub(super) fn start(settings: Settings, deps: &Deps) -> Self {
        let (queue, waiting) = mpsc::channel(settings.notify.queue as usize);
        let (settings, told) = (Arc::new(ArcSwap::from_pointee(settings)), Told::new(Bounded::new(CAUSES_MAX)));
        let work = deliver(Arc::clone(&settings), waiting, Arc::clone(&told), deps.clone());
        deps.tasks.spawn("notifications", work);
        Self { settings, queue, told }
    }

    /// Whether these are new settings of this target.
    pub(super) fn is(&self, settings: &Settings) -> bool {
        let before = self.settings.load();
        (&before.notify.file, before.notify.queue) == (&settings.notify.file, settings.notify.queue)
    }

    /// The same target with other settings.
    pub(super) fn with(&self, settings: Settings) -> Self {
        self.settings.store(Arc::new(settings));
        let (settings, told) = (Arc::clone(&self.settings), Arc::clone(&self.told));
        Self { settings, queue: self.queue.clone(), told }
    }

    /// Puts an event into the queue, where the target wants to hear of it and did not a moment ago. Waits for nobody.
    pub(super) fn tell(&self, event: &Event, deps: &Deps) {
        let settings = self.settings.load();
        let name = event.name();
        if !settings.notify.events.contains(&name) {
            return;
        }
        let cause = (name, event.about().to_owned());
        if self.told.get(&cause).is_some_and(|at| at.elapsed() < settings.notify.again) {
            return deps.metrics.notification(name.word(), "repeated");
        }
        self.told.insert(cause.clone(), Instant::now());
        let delivery = Delivery { event: event.clone(), at: deps.clock.now() };
        if self.queue.try_send(delivery).is_err() {
            self.told.remove(&cause);
            deps.metrics.notification(name.word(), "dropped");
        }
    }
}

/// Delivers what comes, one after the other, until nobody can tell anything more.
async fn deliver(settings: Arc<ArcSwap<Settings>>, mut waiting: mpsc::Receiver<Delivery>, told: Told, deps: Deps) {
    let stopping = deps.tasks.stopping();
    let work = async {
        while let Some(delivery) = waiting.recv().await {
            let name = delivery.event.name();
            let outcome = if attempt(&settings, &delivery, &deps.clock, &deps.metrics).await {
                "sent"
            } else {
                // The next time may do better.
                told.remove(&(name, delivery.event.about().to_owned()));
                "failed"
            };
            deps.metrics.notification(name.word(), outcome);
        }
    };
    tokio::select! {
        () = stopping.cancelled() => {}
        () = work => {}
    }
}

/// Tries until it is taken, refused, or was tried often enough.
async fn attempt(settings: &ArcSwap<Settings>, delivery: &Delivery, clock: &Clock, metrics: &Metrics) -> bool {
    let (mut tries, mut pause) = (0, PAUSE_FIRST);
    loop {
        // The URL may be another one by now.
        let now = settings.load_full();
        tries += 1;
        let (why, wait) = match now.send(delivery, clock).await {
            Tried::Done => return true,
            Tried::Refused(why) => {
                give_up(&now.notify.file, delivery, &why);
                return false;
            }
            Tried::Again(why, wait) => (why, wait),
        };
        if tries >= now.notify.tries {
            give_up(&now.notify.file, delivery, &why);
            return false;
        }
        metrics.notification(delivery.event.name().word(), "again");
        let jittered = pause.mul_f32(0.75 + fastrand::f32() / 2.0);
        tokio::time::sleep(wait.unwrap_or(jittered).min(PAUSE_MAX)).await;
        pause = (pause * PAUSE_GROWS).min(PAUSE_MAX);
    }
}

fn give_up(file: &Path, delivery: &Delivery, why: &str) {
    let event = delivery.event.name().word();
    tracing::warn!(url_file = %file.display(), event, why, "nobody was told: {}", delivery.event);
}

/// What is sent: the event's name and its parts, a sentence as `text`, and when it was.
fn document(delivery: &Delivery) -> Bytes {
    let mut document = serde_json::to_value(&delivery.event).unwrap_or_default();
    if let Some(fields) = document.as_object_mut() {
        fields.insert("text".to_owned(), format!("larder: {}", delivery.event).into());
        fields.insert("at".to_owned(), delivery.at.to_string().into());
    }
    document.to_string().into()
}
