//! Back in work: from a kill -9 to the next message, with a supervisor that starts again at once what died.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use model::SubscriptionName;
use tokio::time::{Instant, sleep};

use super::{Bench, load};
use crate::{
    installation::{self, Installation, SOON, await_ready},
    measure::{Aim, Row, ms},
    payload,
};

const TOPIC: &str = "bench/recovery";
const NAME: &str = "recovery";
/// Pause of client and producer after a failed request.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
/// Time between two events.
const EVERY: Duration = Duration::from_millis(20);
const AIM_MS: f64 = 3_000.0;

/// What is killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    Api,
    Dispatcher,
    OneOfTwoDispatchers,
    Nats,
}

pub(super) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut installation = Installation::start(&bench.programs).await?;
    installation.register(&[NAME.to_owned()], TOPIC).await?;
    let mut rows = Vec::new();
    for (victim, title) in [
        (Victim::Api, "api, to the next event"),
        (Victim::Dispatcher, "the only dispatcher, to the next event"),
        (Victim::Nats, "nats-server, to the next event"),
    ] {
        let runs = bench.alone(title, async || killed(&mut installation, victim).await).await?;
        rows.push(Row::new(title, "ms", runs).aim(Aim::AtMost(AIM_MS)));
    }
    let title = "one of two dispatchers, to the next event";
    let second = installation.start_more("dispatcher", "dispatcher-2").await?;
    let runs =
        bench.alone(title, async || killed(&mut installation, Victim::OneOfTwoDispatchers).await).await?;
    rows.push(Row::new(title, "ms", runs).aim(Aim::AtMost(AIM_MS)));
    drop(second);
    rows.push(worker(bench, &installation).await?);
    rows.push(controller(bench, &installation).await?);
    Ok(rows)
}

/// From the kill to the first event that was posted after it, at a consumer whose poll was waiting.
async fn killed(installation: &mut Installation, victim: Victim) -> Result<f64> {
    // One message first: everything is warm, and the queue is empty.
    load::post_and_consume(installation, NAME, TOPIC, 3, Some(EVERY)).await?;
    let (mut producer, mut consumer) =
        (installation.producer().await.ok(), installation.consumer(NAME).await.ok());
    let waiting = consumer.as_mut().context("no consumer")?;
    if load::next(waiting, NAME, 0).await?.is_some() {
        bail!("the queue is not empty");
    }
    let door = installation.api_door();
    let process = match victim {
        Victim::Api => &mut installation.api,
        Victim::Dispatcher | Victim::OneOfTwoDispatchers => &mut installation.dispatcher,
        Victim::Nats => &mut installation.nats,
    };
    let (began, kill) = (Instant::now(), Duration::from_millis(100));
    let killing = async {
        sleep(kill).await;
        process.kill()?;
        let killed = Instant::now();
        if victim != Victim::OneOfTwoDispatchers {
            process.start_again()?;
        }
        Ok::<_, anyhow::Error>(killed)
    };
    let post = async {
        // The first one is posted after the kill for sure.
        sleep(kill + Duration::from_millis(20)).await;
        for number in 100.. {
            ensure!(began.elapsed() < SOON, "no event is accepted");
            let event = payload::event(TOPIC, number, payload::SIZE);
            if producer.is_none() {
                producer = door.producer().await.ok();
            }
            let accepted = match producer.as_mut() {
                Some(producer) => {
                    producer.send("POST", "/v1/messages", &event).await.is_ok_and(|a| a.status == 202)
                }
                None => false,
            };
            if !accepted {
                producer = None;
            }
            sleep(if accepted { EVERY } else { AGAIN_AFTER }).await;
        }
        Ok(())
    };
    let consume = async {
        loop {
            ensure!(began.elapsed() < SOON, "no event arrives");
            if consumer.is_none() {
                consumer = door.consumer(NAME).await.ok();
            }
            match consumer.as_mut() {
                Some(waiting) => match load::next(waiting, NAME, 20).await {
                    Ok(Some(message)) if payload::number(&message) >= Some(100) => return Ok(Instant::now()),
                    Ok(_) => {}
                    Err(_) => consumer = None,
                },
                None => sleep(AGAIN_AFTER).await,
            }
        }
    };
    let both = async {
        let (killed, arrived) = tokio::try_join!(killing, consume)?;
        Ok::<_, anyhow::Error>(ms(arrived - killed))
    };
    let took = tokio::select! {
        took = both => took?,
        ended = post => { ended?; bail!("the producer has ended") }
    };
    if victim == Victim::OneOfTwoDispatchers {
        installation.dispatcher.start_again()?;
    }
    installation.ready().await?;
    empty(installation).await?;
    Ok(took)
}

/// Takes what is left of the queue.
async fn empty(installation: &Installation) -> Result<()> {
    // The last post may still be under way.
    sleep(Duration::from_millis(200)).await;
    let mut consumer = installation.consumer(NAME).await?;
    let began = Instant::now();
    while let Some(message) = load::next(&mut consumer, NAME, 1).await? {
        ensure!(began.elapsed() < SOON, "the queue does not become empty");
        load::acknowledge(&mut consumer, NAME, &message).await?;
    }
    Ok(())
}

/// From the kill in the midst of a prefill to the fence of the next try.
async fn worker(bench: &Bench, installation: &Installation) -> Result<Row> {
    let title = "worker, to its prefill going on";
    let (mut worker, address) = installation.start_more("worker", "worker").await?;
    let broker = installation.broker().await?;
    let mut admin = installation.admin().await?;
    let mut number = 0;
    let runs = bench
        .alone(title, async || {
            number += 1;
            let name = format!("prefilled{number}");
            installation::register(&mut admin, &name, "users/user", true).await?;
            let name: SubscriptionName = name.parse()?;
            let entry = broker.registry().subscription(&name).await?.context("not registered")?;
            let queue = broker.queue(&name, entry.value.incarnation);
            // A disk that is busy with the prefill may make a look take too long: the next one will do.
            let fence_above = async |known: u64| {
                let began = Instant::now();
                while began.elapsed() < SOON {
                    if let Ok(Some(fence)) = queue.fence().await
                        && fence.revision > known
                        && fence.value.attempt > 0
                    {
                        return Ok(fence.revision);
                    }
                    sleep(Duration::from_millis(5)).await;
                }
                bail!("no prefill begins")
            };
            let first = fence_above(0).await?;
            let began = Instant::now();
            while !queue.pending().await.is_ok_and(|pending| pending.is_some_and(|p| p.prefill >= 500)) {
                ensure!(began.elapsed() < SOON, "the prefill does not go on");
                sleep(Duration::from_millis(20)).await;
            }
            worker.kill()?;
            let killed = Instant::now();
            worker.start_again()?;
            fence_above(first).await?;
            let took = ms(killed.elapsed());
            installation::remove(&mut admin, name.as_str()).await?;
            await_ready(address, &mut worker).await?;
            Ok(took)
        })
        .await?;
    Ok(Row::new(title, "ms", runs).aim(Aim::AtMost(AIM_MS)))
}

async fn controller(bench: &Bench, installation: &Installation) -> Result<Row> {
    let title = "controller, to being ready";
    let (mut controller, address) = installation.start_more("controller", "controller").await?;
    let runs = bench
        .alone(title, async || {
            controller.kill()?;
            let killed = Instant::now();
            controller.start_again()?;
            await_ready(address, &mut controller).await?;
            Ok(ms(killed.elapsed()))
        })
        .await?;
    Ok(Row::new(title, "ms", runs).aim(Aim::AtMost(AIM_MS)))
}
