//! The project's tasks: `cargo xtask <command>`. This file is the table, each command is a file of its name.

use std::process::ExitCode;

use clap::Parser;

mod cluster;
mod commands;
mod image;
mod tools;
mod workspace;

/// The project's tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
enum Task {
    /// A real single-node Kubernetes on this machine, for tests and for trying things out
    Cluster(cluster::Args),
    /// Build the container images: the product's, and those of the tests
    Image,
    /// Get the programs that tests and checks use
    Tools,
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Cluster(args) => cluster::run(args),
        Task::Image => image::run(),
        Task::Tools => tools::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
