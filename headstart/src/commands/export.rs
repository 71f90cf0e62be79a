//! `headstart export`: a dump of the directory, in a file or on standard output.

use std::io::{IsTerminal, Write};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use model::{RealmTopic, topic::UDM_REALM};
use prefill_job::source::{SourceEvent, dump::DumpWriter};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::display::say;
use crate::settings;

/// Objects that wait between source and disk.
const CHANNEL: usize = 1000;

pub async fn export(settings: settings::Export, shutdown: CancellationToken) -> anyhow::Result<()> {
    let source = settings.source.open(&settings.udm)?;
    // All that is in the index, less what is never read.
    let topics = if settings.topic.is_empty() { vec![".*".to_owned()] } else { settings.topic };
    let topics: Vec<RealmTopic> =
        topics.into_iter().map(|topic| RealmTopic { realm: UDM_REALM.to_owned(), topic }).collect();
    let writer = DumpWriter::create(&settings.output).map_err(named)?;
    let (path, becomes_file) = (writer.path().display().to_string(), writer.becomes_file());
    let (sender, events) = mpsc::channel(CHANNEL);
    // Compressing and writing keep a thread busy.
    let writing = tokio::task::spawn_blocking(move || write(writer, events));
    let both = async {
        let read = source.read(&topics, sender).await;
        let written = writing.await.context("the writer ended by itself")?;
        // What the disk says comes first: the source only sees that nobody takes its objects any more.
        let (writer, counts) = written.map_err(named)?;
        read?;
        // Rather an account that sees nothing, or a wrong --topic, than a directory: no source either.
        anyhow::ensure!(
            counts.objects > 0,
            "there is no object to write ({} could not be read), so {path} stays as it was",
            counts.broken
        );
        tokio::task::spawn_blocking(|| writer.finish())
            .await
            .context("the writer ended by itself")?
            .map_err(named)?;
        Ok(counts)
    };
    let Counts { objects, vanished, broken } = tokio::select! {
        counts = both => counts,
        () = shutdown.cancelled() => Err(match becomes_file {
            true => anyhow::anyhow!("stopped; nothing was written"),
            false => anyhow::anyhow!("stopped; what was written to {path} is not all"),
        }),
    }?;
    let left_out = if broken > 0 { format!(", {broken} could not be read") } else { String::new() };
    let line = format!("{path}: {objects} objects; {vanished} vanished while they were read{left_out}\n");
    if becomes_file {
        say(&line);
    } else {
        // Standard output may be where the dump goes. Nothing is left to do when this can't be written.
        std::io::stderr().write_all(line.as_bytes()).ok();
    }
    Ok(())
}

fn named(error: prefill_job::source::dump::WriteError) -> anyhow::Error {
    anyhow::Error::from(error).context("the dump (--output)")
}

#[derive(Default)]
struct Counts {
    objects: u64,
    vanished: u64,
    broken: u64,
}

fn write(
    mut writer: DumpWriter,
    mut events: mpsc::Receiver<SourceEvent>,
) -> Result<(DumpWriter, Counts), prefill_job::source::dump::WriteError> {
    let bar = bar();
    let mut counts = Counts::default();
    let mut before = 0;
    while let Some(event) = events.blocking_recv() {
        match event {
            SourceEvent::TopicStarted { topic, total } => {
                bar.set_length(bar.length().unwrap_or(0) + total.unwrap_or(0));
                tracing::debug!(topic, total, "reading");
                before = counts.objects;
                bar.set_message(topic);
            }
            SourceEvent::Object(object) => {
                writer.write(&object.object)?;
                counts.objects += 1;
                bar.inc(1);
            }
            SourceEvent::Skipped { .. } => {
                counts.vanished += 1;
                bar.inc(1);
            }
            SourceEvent::Retrying { error } => bar.suspend(|| tracing::warn!(error, "trying again")),
            SourceEvent::Broken { topic, dn, problem, .. } => {
                bar.suspend(|| tracing::warn!(topic, dn, problem, "an object can't be read and is left out"));
                counts.broken += 1;
                bar.inc(1);
            }
            SourceEvent::NoModule { topic } => {
                bar.suspend(|| tracing::warn!(topic, "UDM knows no such type, which is left out"));
            }
            SourceEvent::TopicFinished { topic } => {
                if bar.is_hidden() {
                    tracing::info!(topic, objects = counts.objects - before, "exported");
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok((writer, counts))
}

/// On a terminal; hidden elsewhere.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    // The template is ours and right; without it the bar is only plainer.
    if let Ok(style) = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {per_sec} {eta}") {
        bar.set_style(style);
    }
    bar
}
