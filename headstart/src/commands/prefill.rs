//! `headstart prefill`: one attempt, in a Job's pod.

use std::process::ExitCode;

use broker::Broker;
use prefill_job::{Failure, Outcome, job, source::Source};
use tokio_util::sync::CancellationToken;

use super::start::{NATS_WITHIN, connect};
use crate::settings;

pub async fn prefill(settings: settings::Prefill, shutdown: CancellationToken) -> ExitCode {
    let config = job::Config {
        task: settings.task.clone(),
        holder: settings.pod_name.clone(),
        termination_log: settings.termination_log.clone(),
    };
    let outcome = match prefill_parts(&settings, &shutdown).await {
        Ok((broker, source)) => job::run(&config, &broker, &source, &shutdown).await,
        Err(failure) => Outcome::Failed(failure),
    };
    job::report(&config, &outcome);
    ExitCode::from(outcome.exit_code() as u8)
}

async fn prefill_parts(
    settings: &settings::Prefill,
    shutdown: &CancellationToken,
) -> Result<(Broker, Source), Failure> {
    let source = settings.source.open(&settings.udm).map_err(|e| Failure {
        code: model::ExitCode::BadRequest,
        reason: model::Reason::BadRequest,
        message: format!("{e:#}"),
        lost_to_twin: false,
    })?;
    let broker =
        connect(&settings.nats.config("prefill"), NATS_WITHIN, shutdown).await.map_err(|e| Failure {
            code: model::ExitCode::Transient,
            reason: model::Reason::Internal,
            message: format!("{e:#}"),
            lost_to_twin: false,
        })?;
    Ok((broker, source))
}
