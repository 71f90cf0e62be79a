//! The subcommands: from settings to what they do.

mod components;
mod display;
mod export;
mod prefill;
mod register;
mod start;
mod validate;
mod watch;

use std::{io::Write, path::Path, process::ExitCode, time::Duration};

use anyhow::Context;
use reqwest::{Client, StatusCode};

use crate::{settings::Command, shutdown, standalone};

pub use components::{api_config, dispatcher_config, dispatching, sweep, worker_config};
#[cfg(test)]
pub use components::{controller_config, dispatcher_alone_config, lease_config};
pub use display::say;
#[cfg(test)]
pub use prefill::job_config;
pub use start::Beginning;

/// An answer of the API that may be another one soon: it is on its way, or busy.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// Runs a subcommand. This is the one place where errors become exit codes.
pub async fn run(command: Command) -> ExitCode {
    let to_people = command.is_for_people();
    let shutdown = match shutdown::token() {
        Ok(token) => token,
        Err(error) => {
            tracing::error!(%error, "signals can't be watched");
            return ExitCode::FAILURE;
        }
    };
    let ended = match command {
        Command::Prefill(settings) => return prefill::prefill(settings, shutdown).await,
        Command::Watch(settings) => return watch::watch(settings, shutdown).await,
        Command::Api(settings) => components::api(settings, shutdown).await,
        Command::Dispatcher(settings) => components::dispatcher(settings, shutdown).await,
        Command::Controller(settings) => components::controller(settings, shutdown).await,
        Command::Worker(settings) => components::worker(settings, shutdown).await,
        Command::Standalone(settings) => standalone::run(settings, shutdown).await,
        Command::Validate(settings) => validate::validate(settings, shutdown).await,
        Command::Export(settings) => export::export(settings, shutdown).await,
        Command::Register(settings) => register::run(settings, shutdown).await,
        Command::GuardedNatsServer(arguments) => {
            return standalone::nats_server::become_nats_server(&arguments);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if to_people => failed(&error, 1),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says to a person why a command ends.
fn failed(error: &anyhow::Error, code: u8) -> ExitCode {
    // Nothing is left to do when even this can't be written.
    writeln!(std::io::stderr(), "error: {error:#}").ok();
    ExitCode::from(code)
}

/// A client of the API. Proxies of the environment are not for it: it is mostly in the same cluster.
fn client(ca_file: Option<&Path>, within: Duration) -> anyhow::Result<Client> {
    let mut builder = Client::builder().timeout(within).no_proxy();
    if let Some(path) = ca_file {
        let named = || format!("the certificates {} (--api-ca-file, API_CA_FILE)", path.display());
        let pem = std::fs::read(path).with_context(named)?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).with_context(named)?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().context("preparing HTTPS")
}
