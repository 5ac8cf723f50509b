//! What the benchmarks share: servers in processes of their own, an upstream that counts, clients that throw bytes away
//! in the kernel, a store that is filled beforehand, and tables.
//!
//! A figure is a ratio to something that was run in the same round on the same machine, or a count; absolute figures
//! stand beside it and mean little on another machine. `LARDER_BENCH_QUICK=1` runs everything once and small;
//! `LARDER=/path/to/larder` measures another build of the server.

pub mod client;
pub mod origin;
#[path = "../../tests/it/support/random.rs"]
mod random;
pub mod seed;
pub mod server;
pub mod table;

pub use random::bytes;

/// Whether it is only to be seen that the benchmark runs.
pub fn quick() -> bool {
    std::env::var_os("LARDER_BENCH_QUICK").is_some()
}

/// How often a measurement is taken.
pub fn rounds(usual: usize) -> usize {
    if quick() { 1 } else { usual }
}

/// The middle one of these, and how far the others are away: half the distance of the quartiles, as a share of it.
#[derive(Clone, Copy, Debug)]
pub struct Median {
    pub value: f64,
    pub spread: f64,
}

pub fn median(values: &[f64]) -> Median {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: usize| sorted[(sorted.len() - 1) * share / 4];
    let value = at(2);
    Median { value, spread: if value == 0.0 { 0.0 } else { (at(3) - at(1)) / 2.0 / value } }
}

impl std::fmt::Display for Median {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ±{:.0} %", self.value, self.spread * 100.0)
    }
}
