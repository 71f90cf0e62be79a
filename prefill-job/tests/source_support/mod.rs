//! What the tests of both sources share.

// Each test is a crate of its own, and none needs all of it.
#![allow(dead_code)]

use std::time::Duration;

use model::RealmTopic;
use prefill_job::source::{Source, SourceError, SourceEvent};
use tokio::sync::mpsc;

/// Topics of the realm `udm`.
pub fn topics(names: &[&str]) -> Vec<RealmTopic> {
    names.iter().map(|name| RealmTopic { realm: "udm".to_owned(), topic: (*name).to_owned() }).collect()
}

/// All that a source sends.
#[derive(Debug)]
pub struct Read {
    pub result: Result<(), SourceError>,
    pub events: Vec<SourceEvent>,
}

/// Reads to the end, through a channel that is often full.
pub async fn read(source: &Source, names: &[&str]) -> Read {
    let (sender, mut receiver) = mpsc::channel(3);
    let topics = topics(names);
    let collect = async {
        let mut events = Vec::new();
        while let Some(event) = receiver.recv().await {
            events.push(event);
        }
        events
    };
    let both = async { tokio::join!(source.read(&topics, sender), collect) };
    let (result, events) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it ends");
    Read { result, events }
}

impl Read {
    /// `(topic, text)` of each object.
    pub fn objects(&self) -> Vec<(&str, &str)> {
        let objects = self.events.iter().filter_map(|event| match event {
            SourceEvent::Object(object) => Some((object.topic.as_str(), object.object.get())),
            _ => None,
        });
        objects.collect()
    }

    /// The texts of the objects.
    pub fn texts(&self) -> Vec<&str> {
        self.objects().into_iter().map(|(_, text)| text).collect()
    }

    /// The events as one line each; runs of objects as their number.
    pub fn story(&self) -> Vec<String> {
        let mut story: Vec<String> = Vec::new();
        let mut run = 0;
        for event in &self.events {
            if let SourceEvent::Object(_) = event {
                run += 1;
                continue;
            }
            if run > 0 {
                story.push(format!("{run} objects"));
                run = 0;
            }
            match event {
                SourceEvent::TopicStarted { topic, total: Some(total) } => {
                    story.push(format!("{topic}: {total}"))
                }
                SourceEvent::TopicStarted { topic, total: None } => story.push(format!("{topic}: ?")),
                SourceEvent::TopicFinished { topic } => story.push(format!("{topic} done")),
                SourceEvent::Skipped { topic, .. } => story.push(format!("one of {topic} skipped")),
                SourceEvent::Broken { topic, .. } => story.push(format!("one of {topic} broken")),
                SourceEvent::NoModule { topic } => story.push(format!("{topic}: no module")),
                SourceEvent::Retrying { .. } | SourceEvent::Object(_) => {}
            }
        }
        story
    }

    /// The retries that were reported.
    pub fn retries(&self) -> Vec<&str> {
        let retries = self.events.iter().filter_map(|event| match event {
            SourceEvent::Retrying { error } => Some(error.as_str()),
            _ => None,
        });
        retries.collect()
    }

    /// The error that it ended with.
    pub fn error(&self) -> &SourceError {
        self.result.as_ref().expect_err("it fails")
    }

    /// It must have been well.
    pub fn well(self) -> Self {
        if let Err(error) = &self.result {
            panic!("{error:?}");
        }
        self
    }
}
