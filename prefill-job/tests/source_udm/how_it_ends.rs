//! How it ends.

use std::time::Duration;

use prefill_job::source::SourceError;
use stand_in_udm::{Effect, On, Rule};
use tokio::sync::mpsc;

use crate::source_support::topics;
use crate::{eventually, source, stand_in};

#[tokio::test]
async fn requests_end_when_nobody_waits_for_them() {
    let udm = stand_in().await;
    udm.faults().add(Rule::new(Effect::Hang).on(On::Object));
    let (source, topics) = (source(&udm), topics(&["users/user"]));
    let (sender, _receiver) = mpsc::channel(100);
    let reading = tokio::spawn(async move { source.read(&topics, sender).await });
    eventually("four requests hang", || udm.counters().numbers().objects_now == 4).await;
    reading.abort();
    eventually("no request is left", || udm.counters().numbers().objects_now == 0).await;
    assert_eq!(udm.counters().numbers().objects, 4);
}

#[tokio::test]
async fn it_ends_when_the_engine_takes_no_more() {
    let udm = stand_in().await;
    let (sender, mut receiver) = mpsc::channel(1);
    let (source, topics) = (source(&udm), topics(&["users/user"]));
    let reading = tokio::spawn(async move { source.read(&topics, sender).await });
    receiver.recv().await.unwrap();
    drop(receiver);
    let result = tokio::time::timeout(Duration::from_secs(5), reading).await.expect("it ends").unwrap();
    assert!(matches!(result, Err(SourceError::ReceiverGone)));
}
