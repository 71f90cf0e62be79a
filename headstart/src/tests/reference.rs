//! The pages of `docs/reference` that are made from the code, or name what is in it. Metrics are kept where they are
//! registered, the reasons in `model`.

use std::collections::BTreeSet;

use model::ExitCode;

mod http;
mod settings;

/// A page of `docs/reference`.
macro_rules! page {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/", $name))
    };
}

/// The words in backticks with which rows of tables begin.
fn rows(page: &str) -> Vec<&str> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |").map(|(word, _)| word))
        .collect()
}

#[test]
fn the_reference_of_exit_codes_is_that_of_the_code() {
    use ExitCode::{BadData, BadRequest, CredentialsRefused, Done, SubscriptionGone, Transient};
    let all = [Done, Transient, BadRequest, CredentialsRefused, SubscriptionGone, BadData];
    // Another one does not compile here, and has to be put into the list above.
    let word = |code: ExitCode| match code {
        Done | Transient => "no",
        BadRequest | CredentialsRefused | SubscriptionGone | BadData => "yes",
    };
    let expected: Vec<String> =
        all.into_iter().map(|code| format!("| `{}` | {} |", code as u8, word(code))).collect();
    assert!(all.into_iter().all(|code| code.is_permanent() == (word(code) == "yes")));
    let section = page!("exit-codes.md").split("\n## ").find(|part| part.starts_with("`headstart prefill`"));
    let rows: Vec<&str> = section.unwrap().lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), expected.len(), "{rows:?}");
    for (row, expected) in rows.iter().zip(expected) {
        assert!(row.starts_with(&expected), "{row}: {expected}");
    }
}

/// Labels and annotations are constants without a list, so they are read in the source.
#[test]
fn the_reference_of_labels_is_that_of_the_code() {
    let sources = [
        include_str!("../../../manifests/src/labels.rs"),
        include_str!("../../../controller/src/annotations.rs"),
    ];
    let names = sources.iter().flat_map(|source| source.lines()).filter_map(|line| {
        let value = line.strip_prefix("pub const ")?.split_once(": &str = \"")?.1.strip_suffix("\";")?;
        value.contains('/').then_some(value)
    });
    let names: BTreeSet<&str> = names.collect();
    assert!(names.len() > 12, "{names:?}");
    let documented = rows(page!("labels.md"));
    assert_eq!(documented.iter().copied().collect::<BTreeSet<_>>(), names);
    assert_eq!(documented.len(), names.len(), "each once");
}
