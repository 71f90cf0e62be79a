//! The project's tasks: `cargo xtask <command>`. This file is the table, each command is a file of its name.

use std::process::ExitCode;

use clap::Parser;

mod bench;
mod campaign;
mod check;
mod cluster;
mod commands;
mod demo;
mod docs;
mod image;
mod interrupt;
mod release;
mod steps;
mod test;
mod tools;
mod workspace;

/// The project's tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
enum Task {
    /// Measure Headstart beside JetStream alone, and write the table of docs/benchmarks.md
    Bench(bench::Args),
    /// The crash campaign: kill and stop everything, and prove that nothing is lost
    Campaign(campaign::Args),
    /// Check format, lints, manifests, publiccode.yml, words, links, docs, chart and dependencies
    Check {
        /// Only the gates whose names contain one of these
        gates: Vec<String>,
    },
    /// A real single-node Kubernetes on this machine, for tests and for trying things out
    Cluster(cluster::Args),
    /// See what Headstart does, in a minute, without Kubernetes
    Demo(demo::Args),
    /// Build the documentation as a book, in target/book, and follow its links
    Docs,
    /// Build the container images: the product's, and those of the tests
    Image,
    /// Make what a release consists of: binaries, images, chart, list of components, checksums
    Release(release::Args),
    /// Run all tests: against a real nats-server, and in a real Kubernetes
    #[command(after_help = test::ENVIRONMENT)]
    Test(test::Args),
    #[command(hide = true)]
    TestRunner(test::RunnerArgs),
    /// Get the programs that tests and checks use, or only those that are named
    Tools {
        /// Only these
        names: Vec<tools::Tool>,
    },
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Bench(args) => bench::run(&args),
        Task::Campaign(args) => campaign::run(&args),
        Task::Check { gates } => check::run(&gates),
        Task::Cluster(args) => cluster::run(args).map(|()| ExitCode::SUCCESS),
        Task::Demo(args) => demo::run(&args),
        Task::Docs => docs::run().map(|()| ExitCode::SUCCESS),
        Task::Image => image::run().map(|()| ExitCode::SUCCESS),
        Task::Release(args) => release::run(args).map(|()| ExitCode::SUCCESS),
        Task::Test(args) => test::run(&args),
        Task::TestRunner(args) => test::run_unless_cluster(&args).map(|()| ExitCode::SUCCESS),
        Task::Tools { names } => tools::run(&names).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
