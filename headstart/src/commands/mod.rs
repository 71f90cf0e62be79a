//! The subcommands: from settings to what they do.

mod components;
mod export;
mod prefill;
mod register;
mod start;
mod validate;
mod watch;

use std::process::ExitCode;

use reqwest::StatusCode;

use crate::{settings::Command, shutdown, standalone};

pub use components::{api_config, dispatcher_config, sweep, worker_config};
pub use start::{connect, with_layout};

/// An answer of the API that may be another one soon: it is on its way, or busy.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// Runs a subcommand. This is the one place where errors become exit codes.
pub async fn run(command: Command) -> ExitCode {
    let shutdown = match shutdown::token() {
        Ok(token) => token,
        Err(error) => {
            tracing::error!(%error, "signals can't be watched");
            return ExitCode::FAILURE;
        }
    };
    let ended = match command {
        Command::Prefill(settings) => return prefill::prefill(settings, shutdown).await,
        Command::Api(settings) => components::api(settings, shutdown).await,
        Command::Dispatcher(settings) => components::dispatcher(settings, shutdown).await,
        Command::Controller(settings) => components::controller(settings, shutdown).await,
        Command::Worker(settings) => components::worker(settings, shutdown).await,
        Command::Standalone(settings) => standalone::run(settings, shutdown).await,
        Command::Validate(settings) => validate::validate(settings, shutdown).await,
        Command::Export(settings) => export::export(settings, shutdown).await,
        Command::Watch(settings) => watch::watch(settings, shutdown).await,
        Command::Register(settings) => register::run(settings, shutdown).await,
        Command::GuardedNatsServer(arguments) => {
            return standalone::nats_server::become_nats_server(&arguments);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
