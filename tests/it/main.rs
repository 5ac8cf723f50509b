//! larder as a whole, in this process, before a scripted upstream. The names of the tests are what must hold.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests end when something is not as it should be"
)]

mod access;
mod admin;
mod collect;
mod damage;
mod eviction;
mod fallback;
mod forges;
mod freshness;
mod full_disk;
mod history;
mod hooks;
mod hosted;
mod hostile;
mod independent;
mod lists;
mod missing;
mod mount;
mod names;
mod notify;
mod outage;
mod prune;
mod pull;
mod remotes;
mod replay;
mod report;
mod resume;
mod runs;
mod sending;
mod shutdown;
mod single_flight;
mod specification;
mod support;
mod uploads;
mod uploads_bounds;
