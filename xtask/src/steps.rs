//! Showing what goes on.

use std::time::Instant;

use anyhow::Result;

/// Does something, and prints what and how long it took.
///
/// # Errors
/// What it gave.
pub fn step<T>(name: &str, what: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("== {name}");
    let begun = Instant::now();
    let done = what();
    let outcome = if done.is_ok() { "" } else { " (failed)" };
    println!("== {name}: {:.1} s{outcome}", begun.elapsed().as_secs_f64());
    done
}
