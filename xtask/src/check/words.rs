//! Words that must not be in the repository, and words that sound translated and must not be in its prose.

use std::fs;

use anyhow::{Result, bail};

use crate::workspace;

/// A word, in pieces so that this file does not hold it, and why it is not wanted.
const FORBIDDEN: [(&[&str], &str); 6] = [
    (&["TO", "DO"], "finish it, or write it down in docs/"),
    (&["FIX", "ME"], "fix it"),
    (&["dbg", "!("], "left over from a search"),
    (&["..", "/shared"], "a folder that nobody else has"),
    (&["/wo", "rk/"], "a folder of one machine"),
    (&["/ro", "ot/."], "a folder of one machine"),
];

/// Idioms that sound translated, in lower case, and what to write instead. Only those that plain English text of ours
/// never needs: a wrong alarm costs more than a missed one.
const IDIOMS: [(&str, &str); 27] = [
    ("all that exists", "everything that already exists"),
    ("anew", "again, start over, rewrite"),
    ("are away", "are unavailable"),
    ("are looked at", "are checked"),
    ("are waited for", "name who waits: waits for"),
    ("asked for again", "requested again"),
    ("by itself", "automatically, without help, on its own"),
    ("can not", "can't"),
    ("count to", "count towards"),
    ("counts to", "counts towards"),
    ("for ever", "forever"),
    ("go on", "continue"),
    ("goes on", "continues"),
    ("half-way", "interrupted, incomplete"),
    ("hardly longer", "little longer"),
    ("is away", "is unavailable"),
    ("is looked at", "is checked"),
    ("is waited for", "name who waits: waits for"),
    ("lies", "is in, is below"),
    ("mend", "fix"),
    ("mended", "fixed"),
    ("mends", "fixes"),
    ("shortly", "in short, soon"),
    ("stands", "is in, is written in"),
    ("to be had", "available"),
    ("told", "name who says it: reports, shows, informs"),
    ("whoever", "name the person, client or component"),
];

/// Looks through all files that git knows or would take.
///
/// # Errors
/// A forbidden word was found, or an idiom in text for people.
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
        let idioms = idioms(prose(&file, &text));
        found.extend(idioms.map(|(number, idiom, better)| format!("{file}:{number}: {idiom:?}: {better}")));
    }
    if !found.is_empty() {
        bail!("{}", found.join("\n"));
    }
    Ok(())
}

fn faults(line: &str) -> impl Iterator<Item = &'static str> {
    FORBIDDEN.iter().filter(move |(word, _)| line.contains(&word.concat())).map(|(_, why)| *why)
}

/// The numbered lines of a file that operators and users read: pages, comments of the chart's values, and the comments
/// that become the text of `--help`.
fn prose<'a>(file: &str, text: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let page = file.ends_with(".md") && (!file.contains('/') || file.starts_with("docs/"));
    let comment = match file {
        "charts/headstart/values.yaml" => Some("#"),
        _ if file.starts_with("headstart/src/settings/") => Some("/// "),
        _ => None,
    };
    let whole = page || file == "charts/headstart/README.md";
    let lines = (1..).zip(text.lines());
    lines.filter(move |(_, line)| whole || comment.is_some_and(|mark| line.trim_start().starts_with(mark)))
}

/// The idioms in a text, also across the end of a line: the line, the idiom, and what to write instead.
fn idioms<'a>(
    lines: impl Iterator<Item = (usize, &'a str)>,
) -> impl Iterator<Item = (usize, &'static str, &'static str)> {
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    let words: Vec<(usize, String)> = lines
        .flat_map(|(number, line)| line.split_whitespace().map(move |word| (number, bare(word))))
        .filter(|(_, word)| !word.is_empty())
        .collect();
    (0..words.len()).flat_map(move |at| {
        let here = |idiom: &str| {
            let mut rest = words[at..].iter();
            idiom.split(' ').all(|part| rest.next().is_some_and(|(_, word)| word == part))
        };
        let number = words[at].0;
        let found: Vec<_> = IDIOMS.iter().filter(|(idiom, _)| here(idiom)).collect();
        found.into_iter().map(move |(idiom, better)| (number, *idiom, *better))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_words_are_found_and_their_like_are_not() {
        assert_eq!(faults(&["// ", "TO", "DO: later"].concat()).count(), 1);
        assert_eq!(faults("see https://example.org/network/ and todo!()").count(), 0);
    }

    fn found(file: &str, text: &str) -> Vec<(usize, &'static str)> {
        idioms(prose(file, text)).map(|(number, idiom, _)| (number, idiom)).collect()
    }

    #[test]
    fn idioms_are_found_across_lines_and_their_like_are_not() {
        let text = "It is *told*, by\n  itself.\nThe stand-in UDM understands a retold story: \"Go on.\"";
        assert_eq!(found("docs/a.md", text), [(1, "told"), (1, "by itself"), (3, "go on")]);
        assert_eq!(found("README.md", "by design, itself; it can notify"), []);
    }

    #[test]
    fn only_what_people_read_is_prose() {
        let help = "/// Told at the start.\nlet told = 1; // told\n";
        assert_eq!(found("headstart/src/settings/mod.rs", help), [(1, "told")]);
        assert_eq!(found("charts/headstart/values.yaml", "told: 1\n  # -- Told.\n"), [(2, "told")]);
        assert_eq!(found("charts/headstart/README.md", "told").len(), 1);
        assert_eq!(found("broker/src/lib.rs", help), []);
        assert_eq!(found("tests/protocol/README.md", "told"), []);
    }

    #[test]
    fn idioms_are_sorted_and_in_lower_case() {
        assert!(IDIOMS.is_sorted_by_key(|(idiom, _)| idiom));
        assert!(IDIOMS.iter().all(|(idiom, better)| *idiom == idiom.to_lowercase() && !better.is_empty()));
    }
}
