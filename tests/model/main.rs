//! The collector against a model: any row of pushes, tags, removals, leases, runs, restarts, lost indexes and single steps of
//! collections, and after each the invariants of ARCHITECTURE.md. A removal must have a reason that the model knows; at the
//! end exactly what is kept is there.
//!
//! `MODEL_CASES` rows (20) of up to `MODEL_STEPS` steps (150) are tried; `make model` tries two million steps.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]
#![expect(clippy::indexing_slicing, reason = "a mistake here fails the test")]

mod model;
mod steps;
mod system;
mod universe;

use proptest::test_runner::Config;
use proptest_state_machine::prop_state_machine;

use system::Collector;

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn config() -> Config {
    Config { cases: number("MODEL_CASES", 20), failure_persistence: None, max_shrink_iters: 2000, ..Config::default() }
}

prop_state_machine! {
    #![proptest_config(config())]

    #[test]
    fn nothing_goes_that_something_keeps_and_nothing_stays_that_nothing_keeps(
        sequential 1..number("MODEL_STEPS", 150) as usize => Collector
    );
}
