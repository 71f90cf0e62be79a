//! `headstart validate`: is this a source that a prefill can be read from? Nothing is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use model::{
    RealmTopic, error_chain,
    topic::{TopicPattern, UDM_REALM},
};
use prefill_job::source::{
    Source, SourceEvent,
    dump::{Dump, Format, Summary},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::display::say;
use crate::settings;

/// What was found, for people and for programs.
struct Found {
    text: String,
    json: Value,
    /// Why it is no source to use; empty if it is one.
    problems: Vec<String>,
}

pub async fn validate(settings: settings::Validate, shutdown: CancellationToken) -> anyhow::Result<()> {
    let source = settings.source.open(&settings.udm)?;
    let patterns = settings
        .topic
        .iter()
        .map(|topic| TopicPattern::new(topic).map_err(|e| anyhow::anyhow!("--topic {topic:?}: {e}")))
        .collect::<Result<Vec<_>, _>>()?;
    let look = async {
        match &source {
            Source::Dump(dump) => dump_found(dump, settings.problems, &patterns).await,
            Source::Udm(_) => udm_found(&source, &patterns).await,
        }
    };
    let found = tokio::select! {
        found = look => found?,
        () = shutdown.cancelled() => anyhow::bail!("stopped"),
    };
    let ok = found.problems.is_empty();
    if settings.json {
        let mut json = found.json;
        json["source"] = settings.source.source.as_str().into();
        json["ok"] = ok.into();
        json["errors"] = found.problems.iter().map(String::as_str).collect();
        say(&format!("{json:#}\n"));
    } else {
        say(&found.text);
    }
    anyhow::ensure!(ok, "{} can't be used: {}", settings.source.source, found.problems.join("; "));
    Ok(())
}

async fn dump_found(dump: &Dump, named: usize, topics: &[TopicPattern]) -> anyhow::Result<Found> {
    let summary = dump.validate(named).await?;
    let mut problems = Vec::new();
    if summary.problem_count > 0 {
        problems.push(format!("{} of its records are no objects", summary.problem_count));
    }
    if summary.objects() == 0 {
        problems.push("it holds no object".to_owned());
    }
    for topic in topics.iter().filter(|topic| !summary.types.keys().any(|name| topic.is_match(name))) {
        problems.push(format!("it has no object of the topic {}", topic.as_str()));
    }
    Ok(Found { text: described(&summary), json: serde_json::to_value(&summary)?, problems })
}

/// A summary as people read it.
fn described(summary: &Summary) -> String {
    let mut text = String::new();
    let format = match summary.format {
        Format::JsonLines => "JSON lines",
        Format::Ldif => "LDIF",
    };
    let width = summary.types.keys().map(String::len).max().unwrap_or(0);
    let mut line = |line: std::fmt::Arguments<'_>| _ = writeln!(text, "{line}");
    line(format_args!("{format}: {} objects of {} types", summary.objects(), summary.types.len()));
    for (name, of_type) in &summary.types {
        line(format_args!(
            "  {name:width$}  {:>9} objects  {:>12} bytes, the biggest {}",
            of_type.objects, of_type.bytes, of_type.biggest_bytes
        ));
        if of_type.without_identifier > 0 {
            line(format_args!(
                "  {:width$}  {} have no univentionObjectIdentifier: UDM may invent another one at each answer",
                "", of_type.without_identifier
            ));
        }
        if !of_type.left_out.is_empty() {
            let names: Vec<String> =
                of_type.left_out.iter().map(|(n, count)| format!("{n} ({count})")).collect();
            line(format_args!(
                "  {:width$}  left out, as no property is known for it: {}",
                "",
                names.join(", ")
            ));
        }
    }
    if summary.untyped > 0 {
        line(format_args!("{} entries without univentionObjectType are left out", summary.untyped));
    }
    for (name, entries) in &summary.not_listed {
        line(format_args!(
            "{entries} entries are left out as UDM would not list them: {name} without all classes of it, or for UDM itself"
        ));
    }
    if summary.no_member_of {
        line(format_args!(
            "no entry has memberOf, so users show no groups: write the dump with slapcat, or with ldapsearch … '*' +"
        ));
    }
    for problem in &summary.problems {
        line(format_args!("line {}: {}", problem.line, problem.problem));
    }
    let named = summary.problems.len() as u64;
    if named < summary.problem_count {
        line(format_args!("… and {} more problems (--problems)", summary.problem_count - named));
    }
    text
}

/// Reads topics as a prefill would.
async fn udm_found(source: &Source, patterns: &[TopicPattern]) -> anyhow::Result<Found> {
    let users = TopicPattern::new("users/user")?;
    let patterns = if patterns.is_empty() { std::slice::from_ref(&users) } else { patterns };
    let asked =
        |topic: &TopicPattern| RealmTopic { realm: UDM_REALM.to_owned(), topic: topic.as_str().to_owned() };
    let topics: Vec<RealmTopic> = patterns.iter().map(asked).collect();
    let (sender, mut events) = tokio::sync::mpsc::channel(1000);
    let count = async {
        let mut counts = BTreeMap::<String, (u64, u64)>::new();
        let mut problems = Vec::new();
        let mut broken = BTreeSet::new();
        while let Some(event) = events.recv().await {
            match event {
                SourceEvent::Object(object) => counts.entry(object.topic).or_default().0 += 1,
                SourceEvent::Skipped { topic, .. } => counts.entry(topic).or_default().1 += 1,
                SourceEvent::TopicStarted { topic, .. } => _ = counts.entry(topic).or_default(),
                SourceEvent::Retrying { error } => tracing::warn!(error, "trying again"),
                // What a prefill sets aside or leaves out on request is a problem to whoever asks for problems.
                SourceEvent::Broken { topic, dn, problem, .. } => {
                    problems.push(format!("{topic} {dn}: {problem}"));
                    broken.insert(topic);
                }
                SourceEvent::NoModule { topic } => problems.push(format!("UDM knows no type {topic}")),
                SourceEvent::TopicFinished { .. } => {}
            }
        }
        (counts, problems, broken)
    };
    let (read, (counts, mut problems, broken)) = tokio::join!(source.read(&topics, sender), count);
    if read.is_ok() {
        for topic in patterns {
            let mut found = counts.iter().filter(|(name, _)| topic.is_match(name)).peekable();
            // That there is no such type at all is said already, and so is what it can't show.
            let nothing = |(name, objects): (&String, &_)| *objects == (0, 0) && !broken.contains(name);
            if found.peek().is_some() && found.all(nothing) {
                let topic = topic.as_str();
                problems.push(format!("it shows no object of the topic {topic}: may its user see them?"));
            }
        }
    }
    let mut text = String::new();
    let mut types = json!({});
    for (topic, (objects, vanished)) in counts {
        _ = writeln!(text, "{topic}: {objects} objects, {vanished} vanished while they were read");
        let lacking = match source {
            Source::Udm(udm) => udm.without_identifier(&topic).await.unwrap_or(0),
            Source::Dump(_) => 0,
        };
        if lacking > 0 {
            _ = writeln!(
                text,
                "  {lacking} have no univentionObjectIdentifier in LDAP: UDM may invent another one at each answer"
            );
        }
        types[topic] = json!({"objects": objects, "vanished": vanished, "without_identifier": lacking});
    }
    problems.extend(read.err().map(|error| error_chain(&error)));
    Ok(Found { text, json: json!({"format": "udm", "types": types}), problems })
}
