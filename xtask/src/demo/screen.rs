//! What the demo shows: lines, and one progress bar below them where the output is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// Lines and a bar.
#[derive(Default)]
pub struct Screen {
    bar: Option<ProgressBar>,
}

impl Screen {
    /// Prints a line, above the bar if there is one.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }

    /// Shows a bar from 0 to `total`.
    pub fn begin(&mut self, name: &'static str, total: u64) {
        let bar = ProgressBar::new(total).with_prefix(name);
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        self.bar = Some(bar);
    }

    /// Moves the bar.
    pub fn at(&self, position: u64, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(message.to_owned());
        }
    }

    /// Replaces the bar by a line.
    pub fn end(&mut self, line: &str) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        println!("{line}\n");
    }
}
