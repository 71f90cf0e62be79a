//! What goes wrong, at the plan's times.

use std::{sync::Arc, time::Duration};

use broker::{Broker, NatsConfig};
use futures::StreamExt;
use model::{PrefillState, prefill::PrefillTask};
use rustix::process::Signal;
use stand_in_udm::{Effect, Faults, On, Rule, Switches};
use tokio::sync::Mutex;

use crate::{
    client::Api,
    history::Recorder,
    plan::{ConsumerPlan, Damage, Fault, Hit, Part, Plan, Target},
    processes::Processes,
};

/// How long the next task is waited for.
const TASK_WITHIN: Duration = Duration::from_secs(5);
/// How long a batch is waited for.
const BATCH_WITHIN: Duration = Duration::from_secs(10);
/// What the server tells of the last message of a batch.
const COMMIT: &str = "Nats-Batch-Commit";
/// How long a process may take to end after SIGTERM.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// Bytes of answers after which a connection is cut in their middle.
const CUT_AFTER: u64 = 3000;

/// How long a twin may take to get the fence.
const FENCE_WITHIN: Duration = Duration::from_secs(6);
/// How long a twin's attempt is waited for.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(4);

/// The one who does it.
#[derive(Clone)]
pub struct Nemesis {
    processes: Arc<Mutex<Processes>>,
    udm: Switches,
    api: Api,
    recorder: Recorder,
}

impl Nemesis {
    /// One for these processes.
    pub fn new(processes: Arc<Mutex<Processes>>, udm: Switches, api: Api, recorder: Recorder) -> Self {
        Self { processes, udm, api, recorder }
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
                self.goes_on(target).await;
            }
            Fault::Relay { stopped, for_ms, away_ms } => {
                self.stop(Target::Dispatcher(stopped), for_ms).await;
                let stopped = Target::Dispatcher(stopped);
                let all = self.processes.lock().await.all();
                let others = all.into_iter().filter(|t| matches!(t, Target::Dispatcher(_)) && *t != stopped);
                let kills = others.map(|other| self.kill(other, away_ms));
                tokio::join!(self.goes_on(stopped), futures::future::join_all(kills));
            }
            Fault::AtTask { for_ms } => {
                let url = self.processes.lock().await.nats_url();
                let queued = async {
                    let client = async_nats::connect(&url).await.ok()?;
                    client.subscribe("tasks.prefill.*").await.ok()?.next().await
                };
                if let Ok(Some(_)) = tokio::time::timeout(TASK_WITHIN, queued).await {
                    let replica = self.api.asked();
                    self.recorder.fault("a task is queued");
                    self.api.avoid(Some(replica));
                    self.stop(Target::Api(replica), for_ms).await;
                    self.goes_on(Target::Api(replica)).await;
                    self.api.avoid(None);
                }
            }
            Fault::AtPost { for_ms } => {
                let replica = Target::Api(self.api.posted());
                self.stop(replica, for_ms).await;
                self.goes_on(replica).await;
            }
            Fault::Term { target, away_ms } => self.term(target, away_ms).await,
            Fault::All { nats, away_ms } => {
                let all = self.processes.lock().await.all();
                let all = all.into_iter().filter(|target| nats || *target != Target::Nats);
                let kills = all.map(|target| self.kill(target, away_ms));
                futures::future::join_all(kills).await;
            }
            Fault::AtBatch { part, target, hit } => self.at_batch(part, target, hit).await,
            Fault::Wire { target, damage, for_ms } => self.damage(target, damage, for_ms).await,
            Fault::Udm { status, for_ms } => {
                self.recorder.trouble(format!("UDM answers with {status} for {for_ms} ms"), "udm");
                let effect = Effect::Status { code: status };
                let rule = Rule { on: On::Any, module: None, dn: None, after: 0, times: None, effect };
                let well = self.udm.get();
                self.udm.set(Faults { rules: vec![rule], ..well.clone() });
                tokio::time::sleep(Duration::from_millis(for_ms)).await;
                self.udm.set(Faults { rules: Vec::new(), ..well });
                self.recorder.healed("UDM is well", "udm");
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
                self.recorder.trouble(
                    format!("stop twin {twin} {stop_after_ms} ms after its fence for {for_ms} ms"),
                    "twin",
                );
                let for_ms = Duration::from_millis(for_ms);
                match after_seal_ms {
                    None => tokio::time::sleep(for_ms).await,
                    Some(ms) if heard(&mut fence, "\"sealed\"", for_ms).await => {
                        tokio::time::sleep(Duration::from_millis(ms)).await;
                    }
                    Some(_) => {}
                }
                self.processes.lock().await.signal_twin(twin, Signal::CONT);
                self.recorder.healed(format!("continue twin {twin}"), "twin");
            }
        }
    }

    async fn kill(&self, target: Target, away_ms: u64) {
        self.recorder.trouble(format!("kill {target} for {away_ms} ms"), target);
        self.processes.lock().await.kill(target).await;
        tokio::time::sleep(Duration::from_millis(away_ms)).await;
        let started = self.processes.lock().await.start(target);
        self.recorder.healed(format!("start {target} {}", failure(started)), target);
    }

    /// As Kubernetes ends a pod.
    async fn term(&self, target: Target, away_ms: u64) {
        self.recorder.trouble(format!("end {target} for {away_ms} ms"), target);
        let ending = self.processes.lock().await.term(target);
        if let Some(mut child) = ending
            && tokio::time::timeout(ENDS_WITHIN, child.wait()).await.is_err()
        {
            self.recorder.fault(format!("{target} does not end, and is killed"));
            child.kill().await.ok();
        }
        tokio::time::sleep(Duration::from_millis(away_ms)).await;
        let started = self.processes.lock().await.start(target);
        self.recorder.healed(format!("start {target} {}", failure(started)), target);
    }

    /// The server gives a batch to those who listen before it is stored.
    async fn at_batch(&self, part: Part, target: Target, hit: Hit) {
        let url = self.processes.lock().await.nats_url();
        let subject = match part {
            Part::Prefill => "*.prefill",
            Part::Main => "*.main",
        };
        let committed = async {
            let client = async_nats::connect(&url).await.ok()?;
            // The last message of a batch of copies is the checkpoint.
            let mut heard = futures::stream::select(
                client.subscribe(subject).await.ok()?,
                client.subscribe("*.copied").await.ok()?,
            );
            let mut of_part = false;
            loop {
                let message = heard.next().await?;
                of_part |= message.subject.ends_with(subject.trim_start_matches('*'));
                if of_part && message.headers.is_some_and(|headers| headers.get(COMMIT).is_some()) {
                    return Some(());
                }
            }
        };
        if !matches!(tokio::time::timeout(BATCH_WITHIN, committed).await, Ok(Some(()))) {
            return;
        }
        self.recorder.fault(format!("a batch of {subject} is committed"));
        match hit {
            Hit::Stop(for_ms) => {
                self.stop(target, for_ms).await;
                self.goes_on(target).await;
            }
            Hit::Kill => self.kill(target, 0).await,
            Hit::Late(for_ms) => self.damage(target, Damage::RequestsLate, for_ms).await,
        }
    }

    async fn damage(&self, target: Target, damage: Damage, for_ms: u64) {
        let Some(proxy) = self.processes.lock().await.proxy(target) else { return };
        self.recorder.trouble(format!("the connection of {target}: {damage:?} for {for_ms} ms"), target);
        match damage {
            Damage::Cut => {}
            Damage::AnswersLost => proxy.lose_answers(),
            Damage::RequestsLate => {
                proxy.hold_requests();
                // The client is connected again, and has looked, by the time when they arrive.
                let cut_after = for_ms / 5;
                tokio::time::sleep(Duration::from_millis(cut_after)).await;
                proxy.cut();
                tokio::time::sleep(Duration::from_millis(for_ms - cut_after)).await;
                proxy.release_requests();
            }
            Damage::CutInAnswer => proxy.cut_after(CUT_AFTER),
        }
        if matches!(damage, Damage::AnswersLost | Damage::CutInAnswer) {
            tokio::time::sleep(Duration::from_millis(for_ms)).await;
        }
        proxy.cut_after(0);
        if damage != Damage::RequestsLate {
            proxy.cut();
        }
        self.recorder.healed(format!("the connection of {target} is well"), target);
    }

    async fn stop(&self, target: Target, for_ms: u64) {
        self.recorder.trouble(format!("stop {target} for {for_ms} ms"), target);
        self.processes.lock().await.signal(target, Signal::STOP);
        tokio::time::sleep(Duration::from_millis(for_ms)).await;
    }

    async fn goes_on(&self, target: Target) {
        self.processes.lock().await.signal(target, Signal::CONT);
        self.recorder.healed(format!("continue {target}"), target);
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
                let told = format!("{target} ended by itself ({how}), started {}", failure(started));
                self.recorder.trouble(told, target);
                self.recorder.healed(format!("{target} is started"), target);
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
