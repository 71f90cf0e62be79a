//! The table of `docs/benchmarks.md`, from the results. Pure.

use std::fmt::Write as _;

use crate::measure::{Aim, Row, Spread};

/// What stands around the generated part of the page.
pub const BEGIN: &str = "<!-- written by cargo xtask bench: begin -->";
/// Its end.
pub const END: &str = "<!-- written by cargo xtask bench: end -->";

/// A titled group of rows.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its title.
    pub title: &'static str,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// The generated part: the conditions in a line, then a table for each group.
pub fn render(conditions: &str, groups: &[Group]) -> String {
    let mut text = format!("{conditions}\n");
    for Group { title, rows } in groups {
        write!(
            text,
            "\n### {title}\n\n| what | unit | ours | raw JetStream | ratio | aim |\n| --- | --- | ---: | ---: | ---: | --- |\n"
        )
        .ok();
        for row in rows {
            let raw = row.raw().map_or_else(|| "–".to_owned(), spread);
            let ratio = row.ratio().map_or_else(|| "–".to_owned(), |ratio| percent(ratio.median));
            let ours = row.ours().map_or_else(|| "not measured".to_owned(), spread);
            let name = row.name.replace('|', "\\|");
            writeln!(text, "| {name} | {} | {ours} | {raw} | {ratio} | {} |", row.unit, aims(row)).ok();
        }
        let notes = rows.iter().filter_map(|row| Some((&row.name, row.note.as_ref()?)));
        for (number, (name, note)) in notes.enumerate() {
            let gap = if number == 0 { "\n" } else { "" };
            writeln!(text, "{gap}* {name}: {note}").ok();
        }
    }
    text
}

/// The page with another generated part; `None` if it has no place for one.
pub fn replace(page: &str, generated: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{generated}{END}{after}"))
}

fn spread(Spread { median, least, most }: Spread) -> String {
    format!("**{}** ({} – {})", number(median), number(least), number(most))
}

fn percent(ratio: f64) -> String {
    format!("{} %", number(ratio * 100.0))
}

/// Three significant digits below a thousand; separated thousands above.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (sign, text) = text.strip_prefix('-').map_or(("", text.as_str()), |text| ("-", text));
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match fraction {
        Some(fraction) => format!("{sign}{grouped}.{fraction}"),
        None => format!("{sign}{grouped}"),
    }
}

fn aims(row: &Row) -> String {
    let one = |aim: &Aim| {
        let words = match *aim {
            Aim::AtLeast(least) => format!("≥ {}", number(least).trim_end_matches(".00")),
            Aim::AtMost(most) => format!("≤ {}", number(most).trim_end_matches(".00").trim_end_matches(".0")),
            Aim::OfRaw(least) => format!("≥ {} of raw", percent(least).replace(".0 ", " ")),
        };
        let verdict = match row.met(*aim) {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "–",
        };
        format!("{words}: {verdict}")
    };
    row.aims.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Run;

    #[test]
    fn numbers_for_people() {
        for (value, text) in [
            (0.0, "0.00"),
            (0.456, "0.46"),
            (9.996, "10.0"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1_234.5, "1,234"),
            (-1_234_567.0, "-1,234,567"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn the_table_says_what_was_met() {
        let runs =
            vec![Run::pair(1_000.0, 2_500.0), Run::pair(1_600.0, 3_200.0), Run::pair(1_600.0, 3_200.0)];
        let drain = Row::new("next + ack", "msg/s", runs).aim(Aim::AtLeast(1_500.0)).aim(Aim::OfRaw(0.6));
        let memory = Row::new("api", "MiB", vec![Run::alone(14.96)]).aim(Aim::AtMost(15.0));
        let missing = Row::left_out("stream", "the API has no such path").aim(Aim::OfRaw(0.5));
        let groups = [
            Group { title: "Reading", rows: vec![drain, missing] },
            Group { title: "Memory", rows: vec![memory] },
        ];
        let expected = "\
5 runs each

### Reading

| what | unit | ours | raw JetStream | ratio | aim |
| --- | --- | ---: | ---: | ---: | --- |
| next + ack | msg/s | **1,600** (1,000 – 1,600) | **3,200** (2,500 – 3,200) | 50.0 % | ≥ 1,500: met, ≥ 60 % of raw: **missed** |
| stream |  | not measured | – | – | ≥ 50 % of raw: – |

* stream: the API has no such path

### Memory

| what | unit | ours | raw JetStream | ratio | aim |
| --- | --- | ---: | ---: | ---: | --- |
| api | MiB | **15.0** (15.0 – 15.0) | – | – | ≤ 15: met |
";
        assert_eq!(render("5 runs each", &groups), expected);
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let expected = format!("before\n{BEGIN}\nnew\n{END}\nafter\n");
        assert_eq!(replace(&page, "new\n"), Some(expected));
        assert_eq!(replace("no place", "new"), None);
    }
}
