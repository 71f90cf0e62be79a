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

use std::process::ExitCode;

use clap::Parser;

use settings::{Cli, Command};

fn main() -> ExitCode {
    // In a pod a wrong setting is wrong the next time, too: `headstart prefill` says so by its exit code.
    let in_job = std::env::args().nth(1).as_deref() == Some("prefill");
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { if in_job { 3 } else { 2 } } else { 0 };
            // Nothing is left to do when even this can't be printed.
            error.print().ok();
            if let Some(variables) = settings::missing_variables(&error) {
                eprintln!("Or in the environment: {variables}");
            }
            return ExitCode::from(code);
        }
    };
    if let Command::GuardedNatsServer(arguments) = &cli.command {
        return standalone::nats_server::become_nats_server(arguments);
    }
    logging::init(&cli.logging);
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
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
