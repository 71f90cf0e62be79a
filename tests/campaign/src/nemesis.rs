//! What goes wrong, at the plan's times.

use std::{sync::Arc, time::Duration};

use broker::{Broker, NatsConfig};
use futures::StreamExt;
use model::{PrefillState, PrefillTask};
use rustix::process::Signal;
use tokio::sync::Mutex;

use crate::{
    history::Recorder,
    plan::{ConsumerPlan, Fault, Plan, Target},
    processes::Processes,
};

/// How long the next task is waited for.
const TASK_WITHIN: Duration = Duration::from_secs(5);
/// How long a twin may take to get the fence.
const FENCE_WITHIN: Duration = Duration::from_secs(6);
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
            Fault::Kill { target, away_ms } => self.kill(target, away_ms).await,
            Fault::Stop { target, for_ms } => {
                self.stop(target, for_ms).await;
                self.signal(target, Signal::CONT, "continue").await;
            }
            Fault::Relay { stopped, for_ms, away_ms } => {
                self.stop(Target::Dispatcher(stopped), for_ms).await;
                let other = Target::Dispatcher(1 - stopped);
                let goes_on = self.signal(Target::Dispatcher(stopped), Signal::CONT, "continue");
                tokio::join!(goes_on, self.kill(other, away_ms));
            }
            Fault::AtTask { replica, for_ms } => {
                let url = self.processes.lock().await.nats_url();
                let queued = async {
                    let client = async_nats::connect(&url).await.ok()?;
                    client.subscribe("tasks.prefill.*").await.ok()?.next().await
                };
                if let Ok(Some(_)) = tokio::time::timeout(TASK_WITHIN, queued).await {
                    self.stop(Target::Api(replica), for_ms).await;
                    self.signal(Target::Api(replica), Signal::CONT, "continue").await;
                }
            }
            Fault::Twin { consumer, stop_after_ms, for_ms, after_seal_ms } => {
                let Some(consumer) = consumers.get(consumer) else { return };
                let end = tokio::time::Instant::now() + ATTEMPT_WITHIN;
                let twin = tokio::time::timeout_at(end, self.twin(&consumer.name)).await;
                let Ok(Some((twin, mut fence))) = twin else { return };
                // It may find nothing to do.
                if !heard(&mut fence, &format!("twin-{twin}:"), FENCE_WITHIN).await {
                    return;
                }
                if stop_after_ms > 0 {
                    tokio::time::sleep(Duration::from_millis(stop_after_ms)).await;
                }
                self.processes.lock().await.signal_twin(twin, Signal::STOP);
                self.recorder
                    .fault(format!("stop twin {twin} {stop_after_ms} ms after its fence for {for_ms} ms"));
                let for_ms = Duration::from_millis(for_ms);
                match after_seal_ms {
                    None => tokio::time::sleep(for_ms).await,
                    Some(ms) if heard(&mut fence, "\"sealed\"", for_ms).await => {
                        tokio::time::sleep(Duration::from_millis(ms)).await;
                    }
                    Some(_) => {}
                }
                self.processes.lock().await.signal_twin(twin, Signal::CONT);
                self.recorder.fault(format!("continue twin {twin}"));
            }
        }
    }

    async fn kill(&self, target: Target, away_ms: u64) {
        self.recorder.fault(format!("kill {target} for {away_ms} ms"));
        self.processes.lock().await.kill(target).await;
        tokio::time::sleep(Duration::from_millis(away_ms)).await;
        let started = self.processes.lock().await.start(target);
        self.recorder.fault(format!("start {target} {}", failure(started)));
    }

    async fn stop(&self, target: Target, for_ms: u64) {
        self.signal(target, Signal::STOP, "stop").await;
        tokio::time::sleep(Duration::from_millis(for_ms)).await;
    }

    async fn signal(&self, target: Target, signal: Signal, word: &str) {
        self.recorder.fault(format!("{word} {target}"));
        self.processes.lock().await.signal(target, signal);
    }

    /// Starts a twin of the attempt that a subscription is at, once there is one. What is written to the queue's fence
    /// is heard before its writer gets the answer: so a twin can be stopped between the fence and all that follows.
    async fn twin(&self, name: &str) -> Option<(usize, async_nats::Subscriber)> {
        let url = self.processes.lock().await.nats_url();
        let client = async_nats::connect(&url).await.ok()?;
        let fence = client.subscribe(format!("{name}.fence")).await.ok()?;
        let task = current_task(&url, name).await?;
        let twin = self.processes.lock().await.start_twin(&task).ok()?;
        self.recorder.fault(format!("twin {twin} of {task}"));
        Some((twin, fence))
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

/// Was something written to a fence that holds this text?
async fn heard(fence: &mut async_nats::Subscriber, text: &str, within: Duration) -> bool {
    let hearing = async {
        while let Some(message) = fence.next().await {
            if String::from_utf8_lossy(&message.payload).contains(text) {
                return true;
            }
        }
        false
    };
    tokio::time::timeout(within, hearing).await.unwrap_or(false)
}

fn failure(result: anyhow::Result<()>) -> String {
    result.err().map(|error| format!("failed: {error:#}")).unwrap_or_default()
}

/// The task of the attempt that a subscription's prefill is at, once there is one: what a Job's pod would be given.
async fn current_task(url: &str, name: &str) -> Option<String> {
    let config = NatsConfig::new(url, "campaign");
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
