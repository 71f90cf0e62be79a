//! How a prefill is shown to people: as a bar on a terminal, as lines elsewhere.

use std::{
    io::{ErrorKind, IsTerminal, Write},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// Between two lines of one kind where there is no terminal: a prefill takes minutes, and its log is read later.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Writes to standard output. False: nobody reads it any more, as behind `| head`.
pub fn say(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    // Other failures, such as a full disk behind a redirection, are seen by whoever reads the file.
    !written.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// What of the objects of a prefill is behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Written into the queue.
    pub done: u64,
    /// Vanished while they were read.
    pub skipped: u64,
    /// Left out by the selection.
    pub not_selected: u64,
    /// Dead letters now.
    pub set_aside: u64,
}

impl Counts {
    fn position(self) -> u64 {
        let Self { done, skipped, not_selected, set_aside } = self;
        done + skipped + not_selected + set_aside
    }
}

/// A bar on a terminal, lines elsewhere.
pub struct Display {
    bar: ProgressBar,
    /// The last line, where there is no terminal.
    last: Mutex<Option<Line>>,
}

struct Line {
    kind: &'static str,
    text: String,
    at: Instant,
}

impl Display {
    pub fn new(name: &str) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::no_length().with_prefix(name.to_owned())
        } else {
            ProgressBar::hidden()
        };
        // The template is ours and right; without it the bar is only plainer.
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar, last: Mutex::default() }
    }

    pub fn is_hidden(&self) -> bool {
        self.bar.is_hidden()
    }

    /// Shows how far it is.
    pub fn set(&self, counts: Counts, length: Option<u64>, text: String) {
        match length {
            Some(length) => self.bar.set_length(length),
            None => self.bar.unset_length(),
        }
        self.bar.set_position(counts.position());
        self.line("progress", text);
    }

    /// Shows a line of some kind. Of one kind few lines are written, and none twice.
    pub fn line(&self, kind: &'static str, text: String) {
        if !self.bar.is_hidden() {
            self.bar.set_message(text);
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = last.as_ref().is_none_or(|last| is_due(last, kind, &text, Instant::now()));
        if is_new {
            if !say(&format!("{text}\n")) {
                // As a process that is ended by SIGPIPE: whoever reads has seen enough.
                std::process::exit(141);
            }
            *last = Some(Line { kind, text, at: Instant::now() });
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn is_due(last: &Line, kind: &str, text: &str, now: Instant) -> bool {
    last.kind != kind || (last.text != text && now.saturating_duration_since(last.at) >= LINE_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_when_all_is_behind_it() {
        let counts = Counts { done: 1, skipped: 20, not_selected: 300, set_aside: 4000 };
        assert_eq!(counts.position(), 4321);
    }

    #[test]
    fn few_lines_are_written() {
        let at = Instant::now();
        let last = Line { kind: "progress", text: "1 of 9".to_owned(), at };
        let later = at + LINE_EVERY;
        for (kind, text, now, due) in [
            ("progress", "1 of 9", later, false),
            ("progress", "2 of 9", at, false),
            ("progress", "2 of 9", later, true),
            ("trouble", "503", at, true),
        ] {
            assert_eq!(is_due(&last, kind, text, now), due, "{kind} {text}");
        }
    }
}
