//! Logs go to standard error: for people on a terminal, as JSON lines elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::settings::{LogFormat, Logging};

/// Sets up the logging of the process.
pub fn init(settings: &Logging) {
    let filter = EnvFilter::builder().parse_lossy(directives(&settings.log_level));
    let json = match settings.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        let layer = fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
        registry.with(layer.with_writer(std::io::stderr)).init();
    } else {
        let ansi = std::io::stderr().is_terminal();
        registry.with(fmt::layer().with_ansi(ansi).with_target(false).with_writer(std::io::stderr)).init();
    }
}

/// Python's level names are accepted, as installations have them. The libraries' own chatter needs to be asked for.
fn directives(level: &str) -> String {
    let level = match level.to_ascii_lowercase().as_str() {
        "critical" => "error".to_owned(),
        "warning" => "warn".to_owned(),
        other => other.to_owned(),
    };
    if level.contains(['=', ',']) { level } else { format!("{level},async_nats=warn,hyper=warn,tower=warn") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_python_are_understood() {
        assert!(directives("WARNING").starts_with("warn,"));
        assert!(directives("CRITICAL").starts_with("error,"));
        assert_eq!(directives("info,broker=trace"), "info,broker=trace");
    }
}
