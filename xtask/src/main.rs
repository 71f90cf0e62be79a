//! The project's tasks: `cargo xtask <command>`. This file is the table, each command is a file of its name.

use std::process::ExitCode;

use clap::Parser;

mod cluster;
mod commands;
mod image;
mod workspace;

/// The project's tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
enum Task {
    /// A real single-node Kubernetes on this machine, for tests and for trying things out
    Cluster(cluster::Args),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Cluster(args) => cluster::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
