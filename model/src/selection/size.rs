//! How large a selection may be that is asked for: what is larger was made by a program that went wrong. One that is
//! stored is evaluated whatever its size.

use super::{Filter, Selection, SelectionError};

/// Most characters of a filter.
pub const LONGEST_FILTER: usize = 16_000;
/// Most conditions of a filter, each of which is looked at for each object.
pub const MOST_CONDITIONS: usize = 1000;
/// Most characters of a position.
pub const LONGEST_POSITION: usize = 2000;
/// Most characters of the name of a property.
pub const LONGEST_PROPERTY: usize = 200;

impl Selection {
    /// Is it small enough to be asked for?
    ///
    /// # Errors
    /// [`SelectionError`] for the first part that is too large.
    pub fn check_size(&self) -> Result<(), SelectionError> {
        let wrong = |field, problem: String| Err(SelectionError { field, problem });
        let longer = |text: &str, most: usize| text.chars().nth(most).is_some();
        if let Some(filter) = &self.filter {
            if longer(filter, LONGEST_FILTER) {
                return wrong("filter", format!("the filter has more than {LONGEST_FILTER} characters"));
            }
            // What can't be parsed is somebody else's to say.
            if Filter::parse(filter).is_ok_and(|filter| filter.conditions() > MOST_CONDITIONS) {
                return wrong("filter", format!("the filter has more than {MOST_CONDITIONS} conditions"));
            }
        }
        if self.position.as_ref().is_some_and(|position| longer(position, LONGEST_POSITION)) {
            return wrong("position", format!("the position has more than {LONGEST_POSITION} characters"));
        }
        let mut names = self.properties.iter().flat_map(|properties| properties.names());
        if names.any(|name| longer(name, LONGEST_PROPERTY)) {
            return wrong(
                "properties",
                format!("the name of a property has more than {LONGEST_PROPERTY} characters"),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::Properties;

    #[test]
    fn each_part_has_a_bound_and_what_is_at_it_is_taken() {
        let filter = |filter: String| Selection { filter: Some(filter), ..Selection::default() };
        let position = |position: String| Selection { position: Some(position), ..Selection::default() };
        let keep = |name: String| Selection {
            properties: Some(Properties::Keep(vec!["mail".into(), name])),
            ..Selection::default()
        };
        let conditions = |n: usize| format!("(|{})", "(a=b)".repeat(n));
        for (field, fits, too_large) in [
            ("filter", filter(conditions(999)), filter(conditions(1000))),
            // Characters, not bytes: a name in another script may be as long.
            (
                "filter",
                filter(format!("(a={})", "日".repeat(15_996))),
                filter(format!("(a={})", "x".repeat(15_997))),
            ),
            (
                "position",
                position(format!("ou={}", "日".repeat(1997))),
                position(format!("ou={}", "x".repeat(1998))),
            ),
            ("properties", keep("ß".repeat(200)), keep("x".repeat(201))),
        ] {
            assert_eq!(fits.check_size(), Ok(()), "{field}");
            fits.compile().unwrap();
            assert_eq!(too_large.check_size().unwrap_err().field, field);
            too_large.compile().unwrap();
        }
        assert_eq!(filter("no filter".into()).check_size(), Ok(()), "that is told elsewhere");
    }
}
