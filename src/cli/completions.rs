//! `larder completions SHELL`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::CommandLine;
use super::Console;
use super::Outcome;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, console: &Console) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut CommandLine::command(), "larder", &mut script);
    console.result(&String::from_utf8_lossy(&script));
    Outcome::Done
}
