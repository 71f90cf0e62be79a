//! Errors for people: what was tried and why it failed, in one line.

use std::error::Error;

/// An error with all its causes in one line. A cause that the text holds already is not said again: some libraries
/// repeat their sources.
#[must_use]
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.map(ToString::to_string).fold(error.to_string(), |text, cause| {
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Failed {
        text: &'static str,
        source: Option<Box<Failed>>,
    }

    #[test]
    fn causes_follow_and_repetitions_do_not() {
        let root = Failed { text: "refused", source: None };
        let middle = Failed { text: "connecting: refused", source: Some(Box::new(root)) };
        let error = Failed { text: "reading", source: Some(Box::new(middle)) };
        assert_eq!(error_chain(&error), "reading: connecting: refused");
    }
}
