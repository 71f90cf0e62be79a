//! Keeps the pages of `docs/reference` true: a test beside the code makes each section, and fails when the page
//! differs. With `UPDATE_REFERENCE=1` it writes the section instead.
//!
//! A section is between the lines `<!-- made from the code: NAME -->` and `<!-- end: NAME -->` of its page. All text
//! outside is written by hand.

use std::{
    fmt::{Debug, Write},
    fs,
    ops::Range,
    path::PathBuf,
};

/// Where a section is in a page, without the lines that bound it.
fn section(page: &str, name: &str) -> Option<Range<usize>> {
    let begin = format!("<!-- made from the code: {name} -->\n");
    let start = page.find(&begin)? + begin.len();
    let length = page[start..].find(&format!("<!-- end: {name} -->\n"))?;
    Some(start..start + length)
}

/// Compares a section of a page with what the code says, or writes it.
///
/// # Panics
/// The section differs, or the page or the section does not exist.
#[expect(clippy::expect_used, clippy::panic, reason = "called by tests")]
pub fn keep(page: &str, name: &str, made: &str) {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference")).join(page);
    let text = fs::read_to_string(&path).expect("a page of docs/reference");
    let Some(range) = section(&text, name) else { panic!("docs/reference/{page} has no section {name}") };
    let made = format!("\n{}\n\n", made.trim());
    if text[range.clone()] == made {
        return;
    }
    if std::env::var_os("UPDATE_REFERENCE").is_none() {
        let line = text[range.clone()].lines().zip(made.lines()).find(|(is, should)| is != should);
        let (is, should) = line.unwrap_or(("(the length)", "(another)"));
        panic!(
            "docs/reference/{page}, section {name}, is stale: `UPDATE_REFERENCE=1 cargo xtask check reference` \
             writes it.\n page: {is}\n code: {should}"
        );
    }
    let mut text = text;
    text.replace_range(range, &made);
    fs::write(&path, text).expect("the page can be written");
}

/// A cell of a table: on one line, and with nothing that a page takes for HTML.
fn cell(text: &str) -> String {
    let text = text.replace('|', "\\|").replace('\n', " ");
    // Every other part is code.
    let parts = text.split('`').enumerate().map(|(part, text)| match part % 2 {
        0 => text.replace('<', "\\<"),
        _ => text.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}

/// A table of Markdown.
#[must_use]
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = format!("| {} |\n|{}\n", head.join(" | "), " --- |".repeat(head.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|text| cell(text)).collect();
        table += &format!("| {} |\n", cells.join(" | "));
    }
    table
}

/// A table of the metrics of a registry, from its answer to `/metrics`. A metric without a series is in no such answer,
/// so each needs one.
///
/// # Panics
/// One has none: the registry knows its name, and the answer does not.
#[must_use]
pub fn metrics(open_metrics: &str, registry: &impl Debug) -> String {
    let registry = format!("{registry:?}");
    let registered =
        registry.split("Descriptor { name: \"").skip(1).filter_map(|rest| rest.split('"').next());
    for name in registered {
        assert!(
            open_metrics.contains(&format!("# HELP {name}")),
            "{name} has no series: give it one in the test"
        );
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(help)) => {
                let help = help.trim_end_matches('.').to_owned();
                rows.push(vec![name.to_owned(), String::new(), String::new(), help]);
            }
            (Some("#"), Some("TYPE"), Some(_), Some(kind)) => {
                if let Some(row) = rows.last_mut() {
                    kind.clone_into(&mut row[1]);
                }
            }
            (Some(series), ..) if series != "#" => {
                if let Some(row) = rows.last_mut().filter(|row| row[2].is_empty()) {
                    row[2] = labels(line);
                }
            }
            _ => {}
        }
    }
    for row in &mut rows {
        let suffix = if row[1] == "counter" { "_total" } else { "" };
        row[0] = format!("`{}{suffix}`", row[0]);
    }
    rows.sort();
    table(&["metric", "type", "labels", "meaning"], rows)
}

/// The names of a series' labels.
fn labels(series: &str) -> String {
    let inside =
        series.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(inside, _)| inside);
    let mut names = String::new();
    for name in inside.split("\",").filter_map(|pair| pair.split_once('=')).map(|(name, _)| name) {
        if name != "le" {
            write!(names, "{}`{name}`", if names.is_empty() { "" } else { ", " }).ok();
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_between_its_lines() {
        let page = "a\n<!-- made from the code: x -->\nold\n<!-- end: x -->\nb\n";
        assert_eq!(section(page, "x").map(|range| &page[range]), Some("old\n"));
        assert_eq!(section(page, "y"), None);
        assert_eq!(section("<!-- made from the code: x -->\nold\n", "x"), None);
    }

    #[test]
    fn a_cell_is_text_and_code() {
        assert_eq!(cell("<a> is `<b>|c`,\nor <d>"), "\\<a> is `<b>\\|c`, or \\<d>");
    }

    #[test]
    fn metrics_have_their_type_labels_and_meaning() {
        let text = "# HELP b Time.\n# TYPE b histogram\n# UNIT b seconds\nb_sum{route=\"/a,b\",method=\"GET\"} 1\n\
                    b_bucket{le=\"1\",route=\"x\"} 1\n# HELP a How | many.\n# TYPE a counter\na_total 3\n# EOF\n";
        let expected = "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n\
                        | `a_total` | counter |  | How \\| many |\n| `b` | histogram | `route`, `method` | Time |\n";
        assert_eq!(metrics(text, &()), expected);
    }

    #[test]
    #[should_panic(expected = "jobs has no series")]
    fn a_metric_without_a_series_is_not_forgotten() {
        #[derive(Debug)]
        struct Descriptor {
            name: &'static str,
        }
        let registry = ["up", "jobs"].map(|name| Descriptor { name });
        assert!(format!("{registry:?}").contains(registry[0].name));
        _ = metrics("# HELP up Is it?\n", &registry);
    }
}
