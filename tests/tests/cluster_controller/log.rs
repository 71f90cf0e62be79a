//! What the controllers of all tests log, as they would in a pod: a line of JSON each.

use std::{
    io::Write,
    sync::{Arc, LazyLock, Mutex},
};

use serde_json::Value;

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).expect("the first one");
    log
});

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Value>>>);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().push(serde_json::from_slice(line)?);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Begins to listen.
pub fn listen() {
    LazyLock::force(&LOG);
}

/// The fields of the lines about one incarnation.
pub fn lines_about(incarnation: &str) -> Vec<Value> {
    let lines = LOG.0.lock().unwrap();
    let fields = lines.iter().map(|line| &line["fields"]);
    fields.filter(|fields| fields["incarnation"] == incarnation).cloned().collect()
}
