//! Logs go to standard error: for people on a terminal, as JSON lines elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::settings::{LogFormat, Logging};

/// Sets up the logging of the process. What it says to people is text, wherever it goes.
pub fn init(settings: &Logging, to_people: bool) {
    let filter = EnvFilter::builder().parse_lossy(&settings.log_level);
    let json = match settings.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !to_people && !std::io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        let layer = fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
        registry.with(layer.with_writer(std::io::stderr)).init();
    } else {
        let ansi = std::io::stderr().is_terminal();
        registry.with(fmt::layer().with_ansi(ansi).with_target(false).with_writer(std::io::stderr)).init();
    }
    // A fault in some task is a line like any other, for whoever collects them.
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string);
        let words = panic.payload_as_str().unwrap_or("a panic without words");
        let thread = std::thread::current();
        tracing::error!(panic = words, at, thread = thread.name(), "a fault of the program");
    }));
}

/// The directives for a level, or an error: what is misspelt would silence everything. Python's level names are
/// accepted, as installations have them. The libraries' own chatter needs to be asked for.
pub fn directives(level: &str) -> Result<String, String> {
    const EXPECTED: &str = "give error, warn, info, debug or trace, or directives such as info,broker=debug \
        (--log-level, LOG_LEVEL)";
    let mut directives = Vec::new();
    for directive in level.split(',') {
        let (target, level) = match directive.rsplit_once('=') {
            Some((target, level)) => (Some(target), level),
            None => (None, directive),
        };
        let level = match level.trim().to_ascii_lowercase().as_str() {
            "critical" | "fatal" => "error".to_owned(),
            "warning" => "warn".to_owned(),
            known @ ("off" | "error" | "warn" | "info" | "debug" | "trace") => known.to_owned(),
            _ => return Err(EXPECTED.to_owned()),
        };
        directives.push(match target {
            Some(target) => format!("{}={level}", target.trim()),
            None => level,
        });
    }
    if directives.len() == 1 && !level.contains('=') {
        directives.extend(["async_nats=warn", "hyper=warn", "tower=warn"].map(str::to_owned));
    }
    let directives = directives.join(",");
    match EnvFilter::builder().parse(&directives) {
        Ok(_) => Ok(directives),
        Err(_) => Err(EXPECTED.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test starts itself again, so that the hook is that of a process of its own.
    #[test]
    fn a_panic_is_a_line_of_the_log() {
        const AGAIN: &str = "HEADSTART_TEST_PANICS";
        if std::env::var_os(AGAIN).is_some() {
            init(&Logging { log_level: "info".to_owned(), log_format: LogFormat::Json }, false);
            assert!(std::thread::spawn(|| panic!("odd {}", 17)).join().is_err());
            return;
        }
        let name = "logging::tests::a_panic_is_a_line_of_the_log";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let output = again.args(["--exact", name, "--nocapture"]).env(AGAIN, "1").output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let [line] = lines.as_slice() else { panic!("{text}") };
        assert_eq!((&line["level"], &line["panic"]), (&"ERROR".into(), &"odd 17".into()), "{line}");
        assert!(line["at"].as_str().unwrap().contains("logging.rs"), "{line}");
    }

    #[test]
    fn levels() {
        for (given, expected) in [
            ("WARNING", "warn,async_nats=warn,hyper=warn,tower=warn"),
            ("CRITICAL", "error,async_nats=warn,hyper=warn,tower=warn"),
            ("Info", "info,async_nats=warn,hyper=warn,tower=warn"),
            ("info,broker=trace", "info,broker=trace"),
            ("info, broker = Warning", "info,broker=warn"),
            ("api=debug", "api=debug"),
        ] {
            assert_eq!(directives(given).as_deref(), Ok(expected), "{given}");
        }
        for bad in
            ["verbose", "", "inof", "info,broker", "info,,", "info,broker=verbose", "broker", "=", "20"]
        {
            assert!(directives(bad).unwrap_err().contains("LOG_LEVEL"), "{bad}");
        }
    }
}
