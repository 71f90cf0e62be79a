//! Who holds the lease: the rule as a table, and candidates against an API server that keeps one Lease.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::testing::{Answer, api_server, status};

const ME: &str = "me_1";

fn spec(holder: Option<&str>, seconds: Option<i32>) -> LeaseSpec {
    LeaseSpec {
        holder_identity: holder.map(str::to_owned),
        lease_duration_seconds: seconds,
        ..LeaseSpec::default()
    }
}

#[test]
fn the_rule() {
    for (found, unchanged_s, expected) in [
        (None, 0, Step::Create),
        (Some(spec(Some(ME), Some(15))), 0, Step::Renew),
        (Some(spec(Some(ME), Some(15))), 100, Step::Renew),
        (Some(spec(None, Some(15))), 0, Step::Take),
        (Some(spec(Some(""), None)), 0, Step::Take),
        (Some(spec(Some("other"), Some(15))), 14, Step::Wait),
        (Some(spec(Some("other"), Some(15))), 15, Step::Take),
        (Some(spec(Some("other"), Some(60))), 15, Step::Wait),
        (Some(spec(Some("other"), None)), 14, Step::Wait),
        (Some(spec(Some("other"), Some(-1))), 15, Step::Take),
    ] {
        assert_eq!(step(ME, found.as_ref(), Duration::from_secs(unchanged_s)), expected, "{found:?}");
    }
}

#[test]
fn a_record_tells_since_when_and_how_often_the_holder_changed() {
    let (early, late) =
        (jiff::Timestamp::from_second(100).unwrap(), jiff::Timestamp::from_second(200).unwrap());
    let first = held(ME, None, early);
    assert_eq!((first.acquire_time.clone(), first.lease_transitions), (Some(MicroTime(early)), Some(0)));
    let renewed = held(ME, Some(&first), late);
    assert_eq!((&renewed.acquire_time, &renewed.renew_time), (&first.acquire_time, &Some(MicroTime(late))));
    let taken = held("other", Some(&renewed), late);
    assert_eq!((taken.acquire_time, taken.lease_transitions), (Some(MicroTime(late)), Some(1)));
}

/// An API server with one Lease.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Value>>>,
    silent: Arc<Mutex<bool>>,
    /// Refuses other owners, as OpenShift does.
    owners_stay: bool,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        api_server(move |asked| {
            if *server.silent.lock().unwrap() {
                return Answer::Never;
            }
            let mut lease = server.lease.lock().unwrap();
            let version = |lease: &Value| lease["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
            match (asked.method.as_str(), lease.clone()) {
                ("GET", None) => status(404, "NotFound"),
                ("GET", Some(found)) => Answer::Json(200, found),
                ("POST", Some(_)) => status(409, "AlreadyExists"),
                ("PUT", Some(found))
                    if server.owners_stay
                        && found["metadata"]["ownerReferences"]
                            != asked.body["metadata"]["ownerReferences"] =>
                {
                    status(403, "Forbidden")
                }
                ("PUT", Some(found)) if version(&found) != version(&asked.body) => status(409, "Conflict"),
                (_, found) => {
                    let next = found.map_or(1, |found| version(&found).parse::<u64>().unwrap() + 1);
                    let mut written = asked.body;
                    written["metadata"]["resourceVersion"] = json!(next.to_string());
                    *lease = Some(written.clone());
                    Answer::Json(200, written)
                }
            }
        })
    }

    fn holder(&self) -> Option<String> {
        let lease = self.lease.lock().unwrap();
        lease.as_ref().and_then(|lease| lease["spec"]["holderIdentity"].as_str().map(str::to_owned))
    }
}

/// One controller whose work is to wait until it is stopped.
struct One {
    metrics: Metrics,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), Error>>,
}

impl One {
    fn start(server: &Server, holder: &str) -> Self {
        let (metrics, stop) = (Metrics::default(), CancellationToken::new());
        let config = LeaseConfig {
            namespace: "test".to_owned(),
            name: "lease".to_owned(),
            holder: holder.to_owned(),
            owner: None,
        };
        let (client, figures, shutdown) = (server.client(), metrics.clone(), stop.clone());
        let running = tokio::spawn(async move {
            lead(client, &config, &figures, &shutdown, async |stop: CancellationToken| {
                stop.cancelled().await;
                Ok(())
            })
            .await
        });
        Self { metrics, stop, running }
    }

    /// Time is paused in these tests, so this waits on nothing but the clock of the test.
    async fn leads_within(&self, seconds: u64) -> bool {
        for _ in 0..seconds * 10 {
            if self.metrics.is_leading() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_takes_over_at_once_when_the_first_goes_in_order() {
    let server = Server::default();
    let first = One::start(&server, "first");
    assert!(first.leads_within(1).await);
    let second = One::start(&server, "second");
    assert!(!second.leads_within(60).await, "it took the lease of one that renews it");
    assert!(second.metrics.is_ready() && first.metrics.is_leading());
    first.stop.cancel();
    first.running.await.unwrap().unwrap();
    assert_eq!(server.holder(), None);
    assert!(second.leads_within(5).await);
    assert!(server.holder().unwrap().starts_with("second_"));
}

#[tokio::test(start_paused = true)]
async fn the_second_takes_over_after_a_while_when_the_first_is_killed() {
    let server = Server::default();
    let first = One::start(&server, "first");
    assert!(first.leads_within(1).await);
    let second = One::start(&server, "second");
    assert!(!second.leads_within(5).await);
    first.running.abort();
    assert!(!second.leads_within(10).await, "15 s have to pass");
    assert!(second.leads_within(20).await);
}

#[tokio::test(start_paused = true)]
async fn one_that_cant_renew_ends_before_another_may_lead() {
    let server = Server::default();
    let first = One::start(&server, "first");
    assert!(first.leads_within(1).await);
    *server.silent.lock().unwrap() = true;
    let began = Instant::now();
    let ended = first.running.await.unwrap();
    assert!(matches!(ended, Err(Error::LeaseLost { .. })), "{ended:?}");
    assert!(began.elapsed() < DURATION, "{:?}", began.elapsed());
    assert!(!first.metrics.is_leading() && !first.metrics.is_ready());
}

#[tokio::test(start_paused = true)]
async fn one_whose_lease_was_taken_ends() {
    let server = Server::default();
    let first = One::start(&server, "first");
    assert!(first.leads_within(1).await);
    if let Some(lease) = server.lease.lock().unwrap().as_mut() {
        lease["spec"]["holderIdentity"] = json!("other");
        lease["metadata"]["resourceVersion"] = json!("99");
    }
    let ended = first.running.await.unwrap();
    assert!(matches!(ended, Err(Error::LeaseLost { .. })), "{ended:?}");
    assert_eq!(server.holder().as_deref(), Some("other"));
}

#[tokio::test(start_paused = true)]
async fn of_two_at_once_one_leads() {
    let server = Server::default();
    let both = [One::start(&server, "a"), One::start(&server, "b")];
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(both.iter().filter(|one| one.metrics.is_leading()).count(), 1);
}

/// The Lease of a former version has no owner, and OpenShift lets nobody change that who may not delete it.
#[tokio::test(start_paused = true)]
async fn a_lease_whose_owner_may_not_be_changed_is_taken_with_the_one_that_it_has() {
    let server = Server { owners_stay: true, ..Server::default() };
    *server.lease.lock().unwrap() = Some(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "lease", "resourceVersion": "1", "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "former", "uid": "u"}]},
        "spec": {"leaseDurationSeconds": 15},
    }));
    let first = One::start(&server, "first");
    assert!(first.leads_within(5).await);
    let owner =
        server.lease.lock().unwrap().as_ref().unwrap()["metadata"]["ownerReferences"][0]["name"].clone();
    assert_eq!(owner, "former");
}
