//! What small answers say: the index, and errors.

use std::fmt::Display;

use serde::Deserialize;

use super::retry::Failure;

/// Characters of UDM's own words that an error repeats.
const WORDS_MAX: usize = 200;

/// The names of the modules in the index.
pub(super) fn modules(body: &[u8]) -> Result<Vec<String>, Failure> {
    let index: Index = serde_json::from_slice(body).map_err(unreadable)?;
    Ok(index.links.object_types.into_iter().map(|module| module.name).collect())
}

/// How many objects a list has; `None` of what is no list.
pub(super) fn results(body: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct List {
        results: u64,
    }
    serde_json::from_slice(body).ok().map(|List { results }| results)
}

/// The DN of a list's first entry; `None` if it has none.
pub(super) fn first_dn(body: &[u8]) -> Result<Option<String>, Failure> {
    let List { results, embedded } = serde_json::from_slice(body).map_err(unreadable)?;
    match embedded.objects.into_iter().next() {
        Some(entry) => Ok(Some(entry.dn)),
        None if results == 0 => Ok(None),
        None => Err(Failure::Unreadable(format!("it announces {results} objects and has none"))),
    }
}

/// What UDM says of an error, shortened; with `, ` before it. Empty if it says nothing.
pub(super) fn words(body: &[u8]) -> String {
    let Ok(Problem { error }) = serde_json::from_slice(body) else { return String::new() };
    let words: String = error.message.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
    if words.is_empty() { words } else { format!(", {words:?}") }
}

/// A whole answer that can't be read.
pub(super) fn unreadable(problem: impl Display) -> Failure {
    Failure::Unreadable(problem.to_string())
}

#[derive(Deserialize)]
struct Index {
    #[serde(rename = "_links")]
    links: IndexLinks,
}

#[derive(Deserialize)]
struct IndexLinks {
    #[serde(rename = "udm:object-types")]
    object_types: Vec<ModuleLink>,
}

#[derive(Deserialize)]
struct ModuleLink {
    name: String,
}

#[derive(Deserialize)]
struct List {
    results: u64,
    #[serde(default, rename = "_embedded")]
    embedded: Embedded,
}

#[derive(Default, Deserialize)]
struct Embedded {
    #[serde(default, rename = "udm:object")]
    objects: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    dn: String,
}

#[derive(Deserialize)]
struct Problem {
    error: ProblemWords,
}

#[derive(Deserialize)]
struct ProblemWords {
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_an_error_are_short_and_on_one_line() {
        let body =
            |message: &str| serde_json::json!({"error": {"code": 400, "message": message}}).to_string();
        assert_eq!(words(body("size\nlimit").as_bytes()), ", \"sizelimit\"");
        assert_eq!(words(body(&"ü".repeat(1000)).as_bytes()).chars().count(), WORDS_MAX + 4);
        for none in ["", "<html>", "\"a string\"", &body("")] {
            assert_eq!(words(none.as_bytes()), "");
        }
    }

    #[test]
    fn a_list_says_how_many_it_has() {
        for (body, expected) in
            [(r#"{"_links": {}, "results": 29}"#, Some(29)), ("{}", None), ("<html>", None)]
        {
            assert_eq!(results(body.as_bytes()), expected, "{body}");
        }
    }
}
