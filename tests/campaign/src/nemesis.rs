//! What goes wrong, at the plan's times.

use std::{sync::Arc, time::Duration};

use broker::{Broker, NatsConfig};
use model::{PrefillState, PrefillTask};
use rustix::process::Signal;
use tokio::sync::Mutex;

use crate::{
    history::Recorder,
    plan::{ConsumerPlan, Fault, Plan},
    processes::Processes,
};

/// How long a twin's attempt is waited for.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(4);

/// The one who does it.
#[derive(Clone)]
pub struct Nemesis {
    processes: Arc<Mutex<Processes>>,
    recorder: Recorder,
}

impl Nemesis {
    /// One for these processes.
    pub fn new(processes: Arc<Mutex<Processes>>, recorder: Recorder) -> Self {
        Self { processes, recorder }
    }

    /// Carries out the plan's faults. They overlap, so each is a task of its own; all have ended on return.
    pub async fn run(&self, plan: &Plan) {
        let mut tasks = tokio::task::JoinSet::new();
        for (at_ms, fault) in plan.faults.iter().copied() {
            let due = Duration::from_millis(at_ms);
            let now = Duration::from_micros(self.recorder.now());
            tokio::time::sleep(due.saturating_sub(now)).await;
            let nemesis = self.clone();
            let consumers = plan.consumers.clone();
            tasks.spawn(async move { nemesis.cause(fault, &consumers).await });
        }
        // The longest stop ends in time, too: the run heals everything then.
        let rest = Duration::from_secs(1);
        tokio::time::timeout(rest, async { while tasks.join_next().await.is_some() {} }).await.ok();
    }

    async fn cause(&self, fault: Fault, consumers: &[ConsumerPlan]) {
        match fault {
            Fault::Kill { target, away_ms } => {
                self.recorder.fault(format!("kill {target} for {away_ms} ms"));
                self.processes.lock().await.kill(target).await;
                tokio::time::sleep(Duration::from_millis(away_ms)).await;
                let started = self.processes.lock().await.start(target);
                self.recorder.fault(format!("start {target} {}", failure(started)));
            }
            Fault::Stop { target, for_ms } => {
                self.recorder.fault(format!("stop {target} for {for_ms} ms"));
                self.processes.lock().await.signal(target, Signal::STOP);
                tokio::time::sleep(Duration::from_millis(for_ms)).await;
                self.processes.lock().await.signal(target, Signal::CONT);
                self.recorder.fault(format!("continue {target}"));
            }
            Fault::Twin { consumer, stop_after_ms, for_ms } => {
                let Some(consumer) = consumers.get(consumer) else { return };
                let url = self.processes.lock().await.nats_url();
                let task = tokio::time::timeout(ATTEMPT_WITHIN, current_task(&url, &consumer.name)).await;
                let Ok(Some(task)) = task else { return };
                let Ok(twin) = self.processes.lock().await.start_twin(&task) else { return };
                self.recorder.fault(format!("twin {twin} of {task}"));
                tokio::time::sleep(Duration::from_millis(stop_after_ms)).await;
                self.processes.lock().await.signal_twin(twin, Signal::STOP);
                self.recorder.fault(format!("stop twin {twin} after {stop_after_ms} ms for {for_ms} ms"));
                tokio::time::sleep(Duration::from_millis(for_ms)).await;
                self.processes.lock().await.signal_twin(twin, Signal::CONT);
                self.recorder.fault(format!("continue twin {twin}"));
            }
        }
    }

    /// Starts again what ended by itself, as Kubernetes would, until it is dropped.
    pub async fn supervise(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let mut processes = self.processes.lock().await;
            for (target, how) in processes.ended() {
                let started = processes.start(target);
                self.recorder
                    .fault(format!("{target} ended by itself ({how}), started {}", failure(started)));
            }
        }
    }
}

fn failure(result: anyhow::Result<()>) -> String {
    result.err().map(|error| format!("failed: {error:#}")).unwrap_or_default()
}

/// The task of the attempt that a subscription's prefill is at, once there is one: what a Job's pod would be given.
async fn current_task(url: &str, name: &str) -> Option<String> {
    let config =
        NatsConfig { url: url.to_owned(), user: None, password: None, component: "campaign", replicas: 1 };
    let name = name.parse().ok()?;
    loop {
        if let Ok(broker) = Broker::connect(&config).await {
            for _ in 0..200 {
                let Ok(entry) = broker.registry().subscription(&name).await else { break };
                let open = [PrefillState::Pending, PrefillState::Running];
                if let Some(entry) = entry.filter(|e| open.contains(&e.value.prefill.state)) {
                    return serde_json::to_string(&PrefillTask::of(&entry.value)).ok();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            broker.close().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
