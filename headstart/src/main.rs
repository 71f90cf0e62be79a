//! `headstart`: one binary, one subcommand per component.
//!
//! This crate reads flags and environment, sets up logging and shutdown, connects, and calls the component. It holds
//! the one place for exit codes.

mod commands;
mod health;
mod listen;
mod logging;
mod open_files;
mod settings;
mod shutdown;
mod standalone;

use std::{io::Write, process::ExitCode};

use clap::Parser;

use settings::{Cli, Command};

fn main() -> ExitCode {
    // In a pod a wrong setting is wrong the next time, too: `headstart prefill` says so by its exit code.
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let subcommand = settings::subcommand(arguments.iter().map(String::as_str)).unwrap_or_default();
    let in_job = subcommand == "prefill";
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { if in_job { 3 } else { 2 } } else { 0 };
            // Nothing is left to do when even this can't be printed.
            error.print().ok();
            if let Some(variables) = settings::missing_variables(&error, subcommand) {
                writeln!(std::io::stderr(), "Or in the environment: {variables}").ok();
            }
            return ExitCode::from(code);
        }
    };
    if let Command::GuardedNatsServer(arguments) = &cli.command {
        return standalone::nats_server::become_nats_server(arguments);
    }
    logging::init(&cli.logging, cli.command.is_for_people());
    open_files::raise();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a crypto provider was installed already");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime could not be started");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(commands::run(cli.command));
    // A read of the terminal or a slow look-up of a name must not keep us.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

#[cfg(test)]
mod tests;
