//! `headstart prefill`: one attempt, in a Job's pod.

use std::process::ExitCode;

use broker::Broker;
use prefill_job::{Failure, Outcome, attempt, job, source::Source};
use tokio_util::sync::CancellationToken;

use super::{
    display::{Counts, Display},
    start::{NATS_WITHIN, connect_within},
};
use crate::settings;

pub async fn prefill(settings: settings::Prefill, shutdown: CancellationToken) -> ExitCode {
    let config = told_to_a_person(job_config(&settings));
    let outcome = match prefill_parts(&settings, &shutdown).await {
        Ok((broker, source)) => job::run(&config, &broker, &source, &shutdown).await,
        Err(failure) => Outcome::Failed(failure),
    };
    job::report(&config, &outcome);
    ExitCode::from(outcome.exit_code() as u8)
}

/// The configuration of an attempt.
pub fn job_config(settings: &settings::Prefill) -> job::Config {
    job::Config {
        task: settings.task.clone(),
        holder: settings.pod_name.clone(),
        termination_log: settings.termination_log.clone(),
        options: attempt::Options {
            shape: settings.shape.shape(),
            max_removals: settings.removals.limit(),
            told: None,
        },
    }
}

async fn prefill_parts(
    settings: &settings::Prefill,
    shutdown: &CancellationToken,
) -> Result<(Broker, Source), Failure> {
    let wrong_setting = |e: anyhow::Error| Failure {
        code: model::ExitCode::BadRequest,
        reason: model::Reason::BadRequest,
        message: format!("{e:#}"),
        lost_to_twin: false,
    };
    let source = settings.source.open(&settings.udm).map_err(wrong_setting)?;
    let nats = settings.nats.config("prefill").map_err(wrong_setting)?;
    let broker = connect_within(&nats, NATS_WITHIN, shutdown).await.map_err(|e| Failure {
        code: model::ExitCode::Transient,
        reason: model::Reason::Internal,
        message: format!("{e:#}"),
        lost_to_twin: false,
    })?;
    Ok((broker, source))
}

/// Whoever runs it on a terminal sees a bar.
fn told_to_a_person(config: job::Config) -> job::Config {
    let name = job::read_task(&config.task)
        .map_or_else(|_| "prefill".to_owned(), |task| task.subscription.to_string());
    let display = Display::new(&name);
    if display.is_hidden() {
        return config;
    }
    let (told, mut hears) = tokio::sync::watch::channel(None::<model::prefill::Progress>);
    tokio::spawn(async move {
        while hears.changed().await.is_ok() {
            if let Some(progress) = hears.borrow_and_update().as_ref() {
                let counts = Counts {
                    done: progress.done,
                    skipped: progress.skipped,
                    not_selected: progress.not_selected,
                    set_aside: progress.set_aside,
                };
                display.set(counts, progress.total, progress.to_string());
            }
        }
        display.finish();
    });
    let options = attempt::Options { told: Some(told), ..config.options };
    job::Config { options, ..config }
}
