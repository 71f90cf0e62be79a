//! The bytes of the messages: an event as the directory's listener sends it, filled up to a size.

use bytes::Bytes;

/// Size of a message in bytes, unless a row says otherwise: a user of a directory.
pub const SIZE: usize = 3_000;

/// An event with this number, in a topic, of exactly `size` bytes.
pub fn event(topic: &str, number: usize, size: usize) -> Bytes {
    let head = format!(
        r#"{{"publisher_name":"udm-listener","ts":"2026-01-31T12:00:00Z","realm":"udm","topic":"{topic}","body":{{"old":{{}},"new":{{"objectType":"{topic}","id":"<{number}>","description":""#
    );
    let tail = r#""}}}"#;
    let filling = size.saturating_sub(head.len() + tail.len());
    // Not one letter over and over: what is stored must not be easier to carry than a real object.
    let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=,";
    let mut text = head.into_bytes();
    text.extend(letters.iter().cycle().take(filling));
    text.extend_from_slice(tail.as_bytes());
    text.into()
}

/// The number of an event, from a delivered message.
pub fn number(message: &[u8]) -> Option<usize> {
    let begin = crate::http::find(message, b"\"id\":\"<")? + 7;
    digits(message.get(begin..)?)
}

/// The last `sequence_number` in what was delivered.
pub fn last_sequence(delivered: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"sequence_number\":";
    let begin = crate::http::find_last(delivered, NAME)? + NAME.len();
    digits(delivered.get(begin..)?)
}

/// How many messages of at least `size` bytes stand in an array, without reading each byte.
pub fn count(array: &[u8], size: usize) -> usize {
    let (mut count, mut place) = (0, size.saturating_sub(100));
    while let Some(found) =
        array.get(place..).and_then(|rest| crate::http::find(rest, b"\"sequence_number\":"))
    {
        count += 1;
        place += found + size;
    }
    count
}

fn digits<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    std::str::from_utf8(text.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_their_size_and_number() {
        let event = event("bench/a", 17, SIZE);
        assert_eq!(event.len(), SIZE);
        let value: serde_json::Value = serde_json::from_slice(&event).unwrap();
        assert_eq!(value["topic"], "bench/a");
        assert_eq!(number(&event), Some(17));
    }

    #[test]
    fn what_was_delivered_is_counted() {
        let one = |sequence: u64| {
            let text = String::from_utf8(event("t", 1, SIZE).to_vec()).unwrap();
            format!(
                "{},\"sequence_number\":{sequence},\"num_delivered\":1}}",
                text.strip_suffix('}').unwrap()
            )
        };
        let array = format!("[{},{},{}]", one(7), one(8), one(9));
        assert_eq!(count(array.as_bytes(), SIZE), 3);
        assert_eq!(last_sequence(array.as_bytes()), Some(9));
        assert_eq!(count(b"[]", SIZE), 0);
        assert_eq!(last_sequence(b"null"), None);
    }
}
