//! Words that must not stand in the repository.

use std::fs;

use anyhow::{Result, bail};

use crate::workspace;

/// A word, in pieces so that this file does not hold it, and why it is not wanted.
const FORBIDDEN: [(&[&str], &str); 6] = [
    (&["TO", "DO"], "finish it, or write it down in docs/"),
    (&["FIX", "ME"], "mend it"),
    (&["dbg", "!("], "left over from a search"),
    (&["..", "/shared"], "a folder that nobody else has"),
    (&["/wo", "rk/"], "a folder of one machine"),
    (&["/ro", "ot/."], "a folder of one machine"),
];

/// Looks through all files that git knows or would take.
///
/// # Errors
/// A forbidden word was found.
pub fn check() -> Result<()> {
    let mut found = Vec::new();
    for file in workspace::files(&["--cached", "--others"])? {
        // Checksums are random letters.
        if file.ends_with("go.sum") || file.ends_with("Cargo.lock") {
            continue;
        }
        let Ok(text) = fs::read_to_string(workspace::root().join(&file)) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            found.extend(faults(line).map(|why| format!("{file}:{number}: {}: {why}", line.trim())));
        }
    }
    if !found.is_empty() {
        bail!("{}", found.join("\n"));
    }
    Ok(())
}

fn faults(line: &str) -> impl Iterator<Item = &'static str> {
    FORBIDDEN.iter().filter(move |(word, _)| line.contains(&word.concat())).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_words_are_found_and_their_like_are_not() {
        assert_eq!(faults(&["// ", "TO", "DO: later"].concat()).count(), 1);
        assert_eq!(faults("see https://example.org/network/ and todo!()").count(), 0);
    }
}
