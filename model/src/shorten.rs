//! Texts of others, no longer than the place where they are kept.

/// The text, or as much of it as fits into so many bytes, with `…` at its end. Limits of NATS and Kubernetes count bytes,
/// and a character may have four.
#[must_use]
pub fn shorten(text: &str, bytes: usize) -> String {
    const MORE: &str = "…";
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mut end = bytes.saturating_sub(MORE.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MORE}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_longer_than_its_place_and_no_character_is_cut() {
        for (text, bytes, expected) in [
            ("", 3, ""),
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abc…"),
            ("äöü", 6, "äöü"),
            ("äöüß", 6, "ä…"),
            ("a😀😀", 7, "a…"),
            ("a😀😀", 8, "a😀…"),
        ] {
            assert_eq!(shorten(text, bytes), expected, "{text} in {bytes}");
        }
        for (letter, bytes) in [("x", 600), ("ä", 600), ("€", 601), ("😀", 603)] {
            let short = shorten(&letter.repeat(2000), bytes);
            assert!(short.len() <= bytes && short.len() > bytes - 8, "{letter}: {}", short.len());
        }
    }
}
