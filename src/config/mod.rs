//! What the user decides, read from one YAML file: plain data, no behaviour beyond validation.
//!
//! [`load`] reads, puts the environment in, checks, and answers with everything that is wrong at once, each with file,
//! line and column. Components get their own struct (`Store`, `Arc<Upstream>` …), never the whole [`Config`].
//! `config/complete.yaml` holds every key with its default; a test compares it with what stands here.

pub mod access;
pub mod client;
pub mod document;
pub mod duration;
pub mod forge;
pub mod history;
pub mod limits;
pub mod listen;
pub mod notify;
mod reading;
pub mod reload;
pub mod repository;
pub mod retention;
pub mod secret;
pub mod size;
pub mod store;
mod table;
pub mod telemetry;
pub mod upstream;
mod value;
pub mod views;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::schedule::TimeZoneName;

pub use access::Access;
pub use access::Action;
pub use forge::Forge;
pub use history::History;
pub use limits::Limits;
pub use listen::Admin;
pub use listen::Tls;
pub use notify::EventName;
pub use notify::Notify;
pub use reading::Environment;
pub use reading::Problem;
pub use reload::Reload;
pub use repository::Freshness;
pub use repository::Hosted;
pub use retention::Retention;
pub use secret::Contents;
pub use secret::Secret;
pub use store::Gc;
pub use store::Scrub;
pub use store::Store;
pub use telemetry::Telemetry;
pub use upstream::Upstream;
pub use views::BuildCache;
pub use views::Runs;

use document::Position;
use reading::Reading;
use table::Table;
use value::Value;

/// Everything that is configured, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The registry's addresses; never empty.
    pub listen: Vec<SocketAddr>,
    /// Whether it may listen without TLS on addresses that are not loopback.
    pub plain_http: bool,
    /// What clients call it, where that is not the address.
    pub external_url: Option<Url>,
    /// The certificate of both listeners.
    pub tls: Option<Tls>,
    /// The second listener.
    pub admin: Admin,
    /// How long requests may go on after SIGTERM.
    pub drain: Duration,
    /// Where bytes are kept.
    pub store: Store,
    /// The upstream of names without a host; a key of `upstreams`.
    pub default_upstream: String,
    /// The registries that images come from, by the host in image names.
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    /// Names that live here and take pushes.
    pub hosted: Vec<Hosted>,
    /// For how long tags are fresh.
    pub freshness: Freshness,
    /// How long a pipeline's run sees the same.
    pub runs: Runs,
    /// Which build caches stand in for missing ones.
    pub build_caches: Vec<BuildCache>,
    /// How what nothing names is collected.
    pub gc: Gc,
    /// How what is stored is hashed again.
    pub scrub: Scrub,
    /// Where code lives, by the names that policies and hooks have for it.
    pub forges: BTreeMap<String, Arc<Forge>>,
    /// The time zone of every schedule.
    pub timezone: TimeZoneName,
    /// What goes and what stays.
    pub retention: Retention,
    /// How much of the pulls of the past is kept.
    pub history: History,
    /// Where whoever runs the server is told what happened.
    pub notify: Vec<Notify>,
    /// Who may do what.
    pub access: Access,
    /// Bounds.
    pub limits: Limits,
    /// The log.
    pub telemetry: Telemetry,
}

/// Where a configuration comes from: what the command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// The file; without one the defaults hold.
    pub file: Option<PathBuf>,
    /// Addresses that replace the file's `listen`.
    pub listen: Vec<String>,
    /// A folder that replaces the file's `store.path`.
    pub store: Option<PathBuf>,
    /// A filter that replaces the file's `telemetry.log`.
    pub log: Option<String>,
}

/// A configuration, and what else its reading found.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is allowed and deserves a look.
    pub remarks: Vec<Problem>,
    /// Every file that was read; a change of one asks for a new reading.
    pub files: reload::Seen,
    /// Keys that exist and that the file does not name, like `upstreams.<host>.allow`.
    pub unnamed: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("reading the configuration {}: {source}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file says what can't be.
    #[error("{}", listed(problems))]
    Wrong {
        /// Everything that is wrong; never empty.
        problems: Vec<Problem>,
    },
}

fn listed(problems: &[Problem]) -> String {
    let mut text = String::new();
    for (number, problem) in problems.iter().enumerate() {
        let line_break = if number == 0 { "" } else { "\n" };
        // Writing to a string does not fail.
        let _ = write!(text, "{line_break}{problem}");
    }
    text
}

/// Reads and checks the configuration.
///
/// # Errors
///
/// The file can't be read, or everything that is wrong with it.
pub fn load(sources: &Sources, environment: Environment<'_>) -> Result<Loaded, Error> {
    attempt(sources, environment).0
}

/// The environment of this process.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads the configuration, and tells which files that took, also when it fails: a reload waits for them to change.
fn attempt(sources: &Sources, environment: Environment<'_>) -> (Result<Loaded, Error>, reload::Seen) {
    let name = sources.file.clone().unwrap_or_else(|| PathBuf::from("the defaults"));
    let folder = sources.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let reading = Reading::new(&name, folder, environment);
    let text = match &sources.file {
        None => String::new(),
        Some(file) => match read_text(file, &reading) {
            Ok(text) => text,
            Err(source) => return (Err(Error::Read { file: name, source }), reading.files.into_inner()),
        },
    };
    let mut config = Config::defaults(environment);
    match document::parse(&text) {
        Ok(document) => config.read(&Value::root(&reading, &document), sources),
        Err(malformed) => reading.problem(malformed.at, "", malformed.message),
    }
    let files = reading.files.into_inner();
    let problems = reading.problems.into_inner();
    if !problems.is_empty() {
        return (Err(Error::Wrong { problems }), files);
    }
    let unnamed = reading.keys.into_inner().into_iter().filter(|(_, named)| !named).map(|(key, _)| key).collect();
    let loaded = Loaded { config, remarks: reading.remarks.into_inner(), files: files.clone(), unnamed };
    (Ok(loaded), files)
}

fn read_text(file: &Path, reading: &Reading<'_>) -> std::io::Result<String> {
    let read = reading::read_bounded(file);
    reading.files.borrow_mut().note(file, read.as_deref().ok());
    String::from_utf8(read?).map_err(|_| std::io::Error::other("it is not UTF-8 text"))
}

impl Default for Config {
    fn default() -> Self {
        Self::defaults(&|_| None)
    }
}

impl Config {
    fn defaults(environment: Environment<'_>) -> Self {
        Self {
            listen: vec![listen::default_listen()],
            plain_http: false,
            external_url: None,
            tls: None,
            admin: Admin::default(),
            drain: Duration::from_secs(25),
            store: Store::defaults(environment),
            default_upstream: "docker.io".to_owned(),
            upstreams: upstream::read(None),
            hosted: repository::default_hosted(),
            freshness: Freshness::default(),
            runs: Runs::default(),
            build_caches: Vec::new(),
            gc: Gc::default(),
            scrub: Scrub::default(),
            forges: BTreeMap::new(),
            timezone: TimeZoneName::default(),
            retention: Retention::default(),
            history: History::default(),
            notify: Vec::new(),
            access: Access { anonymous: vec![Action::Pull, Action::Push, Action::Delete], ..Access::default() },
            limits: Limits::default(),
            telemetry: Telemetry::default(),
        }
    }

    /// Whether only programs of this machine reach the registry.
    pub fn is_loopback(&self) -> bool {
        self.listen.iter().all(|address| address.ip().is_loopback())
    }

    fn read(&mut self, root: &Value<'_>, sources: &Sources) {
        let Some(mut table) = root.table() else { return };
        table.later(&["index", "hooks", "warm"]);
        let listen = table.get("listen");
        let listen_place = place(listen.as_ref(), root, sources);
        if sources.listen.is_empty() {
            if let Some(addresses) = listen.as_ref().and_then(listen::addresses) {
                self.listen = addresses;
            }
        } else {
            self.listen = overridden(root, &sources.listen);
        }
        table.set("plain_http", &mut self.plain_http, Value::flag);
        self.external_url = table.optional("external_url", external_url);
        self.tls = table.optional("tls", Tls::read);
        table.within("admin", |table| self.admin.read(table));
        table.set("drain", &mut self.drain, Value::duration);
        table.within("store", |table| self.store.read(table));
        self.read_upstreams(&mut table);
        table.set("hosted", &mut self.hosted, repository::hosted);
        table.set("freshness", &mut self.freshness, repository::freshness);
        table.within("runs", |table| self.runs.read(table));
        table.set("build_caches", &mut self.build_caches, views::build_caches);
        table.within("gc", |table| self.gc.read(table));
        table.within("scrub", |table| self.scrub.read(table));
        table.set("forges", &mut self.forges, forge::forges);
        table.set("timezone", &mut self.timezone, |value| value.parsed(TimeZoneName::parse));
        table.within("retention", |table| self.retention.read(table, &self.timezone));
        table.within("history", |table| self.history.read(table));
        table.set("notify", &mut self.notify, notify::notify);
        self.read_access(&mut table);
        table.within("limits", |table| self.limits.read(table));
        table.within("telemetry", |table| self.telemetry.read(table));
        table.close();
        self.remark_on_forges(root.reading);
        self.override_by(sources, root);
        self.check_listeners(root.reading, &listen_place);
    }

    fn read_upstreams(&mut self, table: &mut Table<'_>) {
        self.upstreams = upstream::read(table.get("upstreams").as_ref());
        let value = table.get("default_upstream");
        if let Some(name) = value.as_ref().and_then(Value::text) {
            self.default_upstream = name;
        }
        if !self.upstreams.contains_key(&self.default_upstream) {
            let known: Vec<&str> = self.upstreams.keys().map(String::as_str).collect();
            let at = value.as_ref().unwrap_or(table.value());
            at.problem(format!(
                "the default upstream `{}` is not among the upstreams: {}",
                self.default_upstream,
                known.join(", ")
            ));
        }
    }

    fn read_access(&mut self, table: &mut Table<'_>) {
        let given = table.get("access");
        if let Some(mut below) = given.as_ref().and_then(Value::table) {
            self.access = Access::default();
            self.access.read(&mut below);
            below.close();
        } else {
            // The keys are looked for all the same, so that the list of keys is whole.
            table.within("access", |table| Access::default().read(table));
            if !self.is_loopback() {
                self.access = Access::default();
            }
        }
    }

    /// A policy that asks a forge that nobody configured keeps everything, and says so in each plan.
    fn remark_on_forges(&self, reading: &Reading<'_>) {
        for (policy, forge) in forge::asked(&self.retention).filter(|(_, forge)| !self.forges.contains_key(*forge)) {
            let place = reading.file.display().to_string();
            let message =
                format!("the policy {policy} asks `{forge}`, which forges does not name: it keeps what it asks for");
            remark(reading, &place, "retention.policies", &message);
        }
    }

    fn override_by(&mut self, sources: &Sources, root: &Value<'_>) {
        if let Some(store) = &sources.store {
            self.store.path.clone_from(store);
        }
        if let Some(log) = &sources.log {
            match telemetry::parse_filter(log) {
                Ok(filter) => self.telemetry.log = filter,
                Err(message) => flag_problem(root.reading, "--log", message),
            }
        }
        if self.store.path.exists() && !self.store.path.is_dir() {
            let place =
                if sources.store.is_some() { "--store".to_owned() } else { root.reading.file.display().to_string() };
            let message = format!("{} is not a folder", self.store.path.display());
            push(root.reading, Problem { place, key: "store.path".to_owned(), message });
        }
    }

    /// What leaves this machine is encrypted, or said to be in the clear.
    fn check_listeners(&self, reading: &Reading<'_>, place: &str) {
        let open = self.listen.iter().find(|address| !address.ip().is_loopback());
        let encrypted = self.tls.is_some() || self.plain_http;
        let problem = |key: &str, message: String| {
            push(reading, Problem { place: place.to_owned(), key: key.to_owned(), message });
        };
        if let (Some(address), false) = (open, encrypted) {
            problem(
                "listen",
                format!("{address} is not loopback: set tls, or plain_http: true to serve without encryption"),
            );
        }
        if !self.admin.listen.ip().is_loopback() && !encrypted {
            problem(
                "admin.listen",
                format!(
                    "{} is not loopback: set tls, or plain_http: true to serve without encryption",
                    self.admin.listen
                ),
            );
        }
        if self.admin.listen.port() != 0 && self.listen.contains(&self.admin.listen) {
            problem("admin.listen", format!("{} is the registry's address too; give each its own", self.admin.listen));
        }
        if !self.admin.listen.ip().is_loopback() {
            remark(reading, place, "admin.listen", "whoever reaches this address can evict images and read names");
        }
        if open.is_some() && self.access.anonymous.is_empty() && self.access.rules.is_empty() {
            remark(reading, place, "access", "nobody may pull: set access.anonymous: [pull], or rules");
        }
    }
}

fn remark(reading: &Reading<'_>, place: &str, key: &str, message: &str) {
    let remark = Problem { place: place.to_owned(), key: key.to_owned(), message: message.to_owned() };
    reading.remarks.borrow_mut().push(remark);
}

fn push(reading: &Reading<'_>, problem: Problem) {
    reading.problems.borrow_mut().push(problem);
}

fn flag_problem(reading: &Reading<'_>, flag: &str, message: String) {
    push(reading, Problem { place: flag.to_owned(), key: String::new(), message });
}

/// Where the addresses were given, for messages about them.
fn place(listen: Option<&Value<'_>>, root: &Value<'_>, sources: &Sources) -> String {
    if !sources.listen.is_empty() {
        return "--listen".to_owned();
    }
    let at: Position = listen.map_or(root.node.at, |value| value.node.at);
    format!("{}:{}:{}", root.reading.file.display(), at.line, at.column)
}

fn overridden(root: &Value<'_>, given: &[String]) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for text in given {
        match listen::parse_address(text) {
            Ok(address) => addresses.push(address),
            Err(message) => flag_problem(root.reading, "--listen", message),
        }
    }
    addresses
}

fn external_url(value: &Value<'_>) -> Option<Url> {
    value.parsed(|text| {
        let url = Url::parse(text)
            .map_err(|error| format!("`{text}` is not a URL ({error}); write one like https://larder.example.com"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(format!("the scheme of `{text}` must be https or http"));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
            return Err(format!("`{text}` must be scheme, host and port alone"));
        }
        Ok(url)
    })
}
