//! How fast events are copied, beside the same copies written at once. Prints; asserts nothing about time.
//! `cargo test --release -p dispatcher --test speed -- --ignored --nocapture`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use broker::{Copier, Copy, testing::NatsServer};
use bytes::Bytes;
use support::{holds, register, start};
use tokio::time::Instant;

const EVENTS: u64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, for people"]
async fn dispatching_beside_raw_copies() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let queues = [register(&broker, "a", "users/user").await, register(&broker, "b", "users/user").await];
    let payload =
        Bytes::from(format!(r#"{{"realm":"udm","topic":"users/user","x":"{}"}}"#, "x".repeat(3000)));
    let publisher = broker.events();
    for _ in 0..EVENTS {
        publisher.publish(payload.clone(), Instant::now()).await.unwrap();
    }
    let raw = register(&broker, "raw", "none").await;
    let mut copier = Copier::open(broker.queue(&raw.name, raw.incarnation)).await.unwrap().unwrap();
    let copies: Vec<Copy> =
        (1..=EVENTS).map(|n| Copy { incoming_seq: n, accepted: None, payload: payload.clone() }).collect();
    let began = Instant::now();
    for batch in copies.chunks(Copier::LARGEST_BATCH) {
        copier.copy(batch).await.unwrap();
    }
    let per_second = |count: u64, took: std::time::Duration| (count as f64 / took.as_secs_f64()).round();
    let raw = per_second(EVENTS, began.elapsed());
    let began = Instant::now();
    let _running = start(&broker);
    for queue in &queues {
        holds(&broker, queue, EVENTS).await;
    }
    let dispatched = per_second(EVENTS * queues.len() as u64, began.elapsed());
    println!("raw batched copies: {raw}/s; dispatched: {dispatched}/s, {:.0} %", 100.0 * dispatched / raw);
    let latencies = async {
        let mut all = vec![];
        for n in 1..=100 {
            let began = Instant::now();
            publisher.publish(payload.clone(), began).await.unwrap();
            while broker.queue(&queues[0].name, queues[0].incarnation).pending().await.unwrap().unwrap().main
                < EVENTS + n
            {}
            all.push(began.elapsed());
        }
        all.sort_unstable();
        all
    };
    let latencies = latencies.await;
    println!("idle, sent until copied: median {:?}, worst of 100 {:?}", latencies[50], latencies[99]);
}
