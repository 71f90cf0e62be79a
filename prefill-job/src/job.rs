//! `headstart prefill`: one attempt in a Job's pod. The request is a file from the Job's ConfigMap.

use std::path::{Path, PathBuf};

use broker::Broker;
use model::{ExitCode, Reason, prefill::PrefillTask};
use tokio_util::sync::CancellationToken;

use crate::{
    attempt::{self, Options},
    outcome::{Failure, Outcome},
    source::Source,
};

/// Settings of the pod.
#[derive(Clone, Debug)]
pub struct Config {
    /// The request: a [`PrefillTask`] as JSON.
    pub task: PathBuf,
    /// Name of the pod.
    pub holder: String,
    /// Where Kubernetes reads the termination message.
    pub termination_log: Option<PathBuf>,
    /// In which shape objects come, and who hears of the progress.
    pub options: Options,
}

/// Reads the request.
///
/// # Errors
/// A permanent [`Failure`] that names the file.
pub fn read_task(path: &Path) -> Result<PrefillTask, Failure> {
    let bad = |problem: String| {
        let text = format!("the request {} (PREFILL_TASK) can't be used: {problem}", path.display());
        Failure::permanent(ExitCode::BadRequest, Reason::BadRequest, text)
    };
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| bad(e.to_string()))
}

/// Runs the attempt and answers how it ended.
pub async fn run(config: &Config, broker: &Broker, source: &Source, shutdown: &CancellationToken) -> Outcome {
    match read_task(&config.task) {
        Ok(task) => {
            attempt::run_with(broker, source, &task, &config.holder, shutdown, config.options.clone()).await
        }
        Err(failure) => Outcome::Failed(failure),
    }
}

/// Logs the outcome and leaves the termination message.
pub fn report(config: &Config, outcome: &Outcome) {
    match outcome {
        Outcome::Done(counts) => {
            let (messages, skipped) = counts.as_ref().map_or((0, 0), |c| (c.messages, c.skipped));
            tracing::info!(messages, skipped, "the prefill is complete");
        }
        Outcome::Held(counts) => {
            tracing::warn!(
                removed = counts.removed,
                "the prefill is held: {}",
                model::resync::held_text(&counts.removals)
            );
        }
        Outcome::Obsolete => tracing::info!("a later attempt has taken over"),
        Outcome::Cancelled => tracing::info!("this attempt was cancelled"),
        Outcome::Failed(Failure { code, reason, message, .. }) => {
            tracing::error!(reason = reason.as_str(), exit_code = *code as u8, "{message}");
        }
    }
    let Some(path) = &config.termination_log else { return };
    let written = serde_json::to_vec(&outcome.termination_message())
        .map_err(std::io::Error::from)
        .and_then(|message| std::fs::write(path, message));
    if let Err(error) = written {
        tracing::warn!(%error, path = %path.display(), "the termination message could not be written (TERMINATION_LOG)");
    }
}
