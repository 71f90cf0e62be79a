//! Leaves `_links` out of an object while its text comes, so that they are never held.
//!
//! The links of a group of 100,000 are 26 MB beside the 6 MB of the group itself. All other bytes stay as they are.
//! Nothing is checked here: what is left is read as JSON afterwards, and what is not whole is not whole then either.

/// The member that is left out, at the top only.
const CUT: &str = "_links";

/// Where in the text it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before the object's brace.
    Front,
    /// Between members; the bytes since the last one are in `between`.
    Between,
    /// In a member's name, which is in `name`.
    Name,
    /// Behind the name, before the value; still in `name`.
    Colon,
    /// In a value of the top.
    Value,
    /// Behind the last brace, or behind what is no object.
    Back,
}

/// Takes the pieces of an object's text and gives them back without `_links`.
#[derive(Debug)]
pub(super) struct LinkStripper {
    at: At,
    between: Vec<u8>,
    name: Vec<u8>,
    /// Is the value one that is left out?
    cutting: bool,
    /// Was a member kept already? Then the comma before the next is kept, too.
    kept_any: bool,
    /// Open braces and brackets within the value.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Is the value a number or a word, which ends where something else begins?
    bare: bool,
}

impl LinkStripper {
    pub fn new() -> Self {
        Self {
            at: At::Front,
            between: Vec::new(),
            name: Vec::new(),
            cutting: false,
            kept_any: false,
            depth: 0,
            in_string: false,
            escaped: false,
            bare: false,
        }
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8], kept: &mut Vec<u8>) {
        let mut rest = piece;
        while let [byte, ..] = rest {
            let taken = match self.at {
                At::Back => {
                    kept.extend_from_slice(rest);
                    return;
                }
                At::Front => {
                    kept.push(*byte);
                    match byte {
                        b'{' => self.at = At::Between,
                        b if b.is_ascii_whitespace() => {}
                        _ => self.at = At::Back,
                    }
                    1
                }
                At::Between => self.between(*byte, kept),
                At::Name => self.name(*byte),
                At::Colon => self.colon(*byte, kept),
                At::Value => self.value(rest, kept),
            };
            rest = &rest[taken..];
        }
    }

    fn between(&mut self, byte: u8, kept: &mut Vec<u8>) -> usize {
        match byte {
            b'"' => {
                self.name.clear();
                self.name.push(byte);
                self.escaped = false;
                self.at = At::Name;
            }
            b',' => self.between.push(byte),
            b if b.is_ascii_whitespace() => self.between.push(b),
            // The object's end, or no JSON.
            _ => {
                kept.append(&mut self.between);
                kept.push(byte);
                self.at = At::Back;
            }
        }
        1
    }

    fn name(&mut self, byte: u8) -> usize {
        self.name.push(byte);
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.cutting = is_cut(&self.name);
                self.at = At::Colon;
            }
            _ => {}
        }
        1
    }

    fn colon(&mut self, byte: u8, kept: &mut Vec<u8>) -> usize {
        if byte == b':' || byte.is_ascii_whitespace() {
            self.name.push(byte);
            return 1;
        }
        // The value begins. What stands before the first member stays, as what stands before any that is kept but
        // the first.
        let first = !self.between.contains(&b',');
        if !self.cutting {
            if first || self.kept_any {
                kept.append(&mut self.between);
            }
            kept.append(&mut self.name);
            self.kept_any = true;
        } else if first {
            kept.append(&mut self.between);
        }
        self.between.clear();
        (self.depth, self.in_string, self.escaped) = (0, false, false);
        self.bare = !matches!(byte, b'"' | b'{' | b'[');
        self.at = At::Value;
        0
    }

    /// Takes as much of the value as the piece has.
    fn value(&mut self, rest: &[u8], kept: &mut Vec<u8>) -> usize {
        let mut taken = rest.len();
        for (place, byte) in rest.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => continue,
                }
            } else if self.bare {
                if matches!(byte, b',' | b'}') || byte.is_ascii_whitespace() {
                    taken = place;
                    self.at = At::Between;
                    break;
                }
                continue;
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                    _ => continue,
                }
            }
            if self.depth == 0 && !self.in_string {
                taken = place + 1;
                self.at = At::Between;
                break;
            }
        }
        if !self.cutting {
            kept.extend_from_slice(&rest[..taken]);
        }
        taken
    }
}

/// Is this quoted name the one that is left out?
fn is_cut(quoted: &[u8]) -> bool {
    match quoted.contains(&b'\\') {
        false => quoted.get(1..quoted.len() - 1) == Some(CUT.as_bytes()),
        true => serde_json::from_slice::<String>(quoted).is_ok_and(|name| name == CUT),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut cutter, mut kept) = (LinkStripper::new(), Vec::new());
        pieces.iter().for_each(|piece| cutter.push(piece, &mut kept));
        kept
    }

    #[test]
    fn links_are_cut_out_and_every_other_byte_stays() {
        for (text, expected) in [
            (r#"{}"#, r#"{}"#),
            (r#"  { }  "#, r#"  { }  "#),
            (r#"{"_links":1}"#, r#"{}"#),
            (r#"{"_links":{},"t":"a/b"}"#, r#"{"t":"a/b"}"#),
            (r#"{"t":"a/b","_links":{"a":["}",1]}}"#, r#"{"t":"a/b"}"#),
            (r#"{"t":"a/b" , "_links":{"_links":{}} ,  "n": 2.0}"#, r#"{"t":"a/b" ,  "n": 2.0}"#),
            (r#"{ "_links": 1, "t": "a/b", "_links": 2 }"#, r#"{ "t": "a/b" }"#),
            (r#"{"_links":1,"_links":2,"t":null}"#, r#"{"t":null}"#),
            (r#"{"\u005flinks": 1, "\u0074": "\""}"#, r#"{"\u0074": "\""}"#),
            (
                r#"{"t":{"_links":{"a":1}},"l":[{"_links":1}]}"#,
                r#"{"t":{"_links":{"a":1}},"l":[{"_links":1}]}"#,
            ),
            (r#"{"_links":"\"}","a\"_links":"{[\\","_links":[]}"#, r#"{"a\"_links":"{[\\"}"#),
            // No objects: left to the reader of what remains.
            (r#"[{"_links":1}]"#, r#"[{"_links":1}]"#),
            (r#"<html>"#, r#"<html>"#),
            (r#"{}{"_links":1}"#, r#"{}{"_links":1}"#),
            (r#"{"a":1,}"#, r#"{"a":1,}"#),
        ] {
            let whole = cut(&[text.as_bytes()]);
            assert_eq!(String::from_utf8(whole).unwrap(), expected, "{text}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(String::from_utf8(cut(&bytes)).unwrap(), expected, "byte by byte: {text}");
        }
    }

    #[test]
    fn what_is_not_whole_does_not_become_whole() {
        let whole =
            r#"{"_links": {"a": ["}"]}, "objectType": "a/b", "_links": [1], "x": {"y": "z"}, "n": 1}"#;
        for length in 0..whole.len() {
            let kept = cut(&[&whole.as_bytes()[..length]]);
            assert!(serde_json::from_slice::<serde_json::Value>(&kept).is_err(), "{}", &whole[..length]);
        }
    }

    /// JSON with nasty strings.
    fn json() -> impl Strategy<Value = serde_json::Value> {
        let text = "[a{}\\[\\],:\"\\\\ _linksü]{0,8}";
        let leaf = prop_oneof![
            text.prop_map(serde_json::Value::from),
            any::<i32>().prop_map(serde_json::Value::from),
            any::<bool>().prop_map(serde_json::Value::from),
            Just(serde_json::Value::Null),
        ];
        leaf.prop_recursive(3, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                proptest::collection::btree_map("_links|[a-c]|\\\\\"|ü", inner, 0..4)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_what_a_reader_would_leave_out(
            members in proptest::collection::btree_map("_links|[a-d]|\"|\\\\", json(), 0..6),
            pretty in any::<bool>(),
            size in 1_usize..9,
        ) {
            let object: serde_json::Map<_, _> = members.into_iter().collect();
            let text = match pretty {
                true => serde_json::to_vec_pretty(&object).unwrap(),
                false => serde_json::to_vec(&object).unwrap(),
            };
            let pieces: Vec<&[u8]> = text.chunks(size).collect();
            let kept = cut(&pieces);
            let mut expected = object;
            expected.remove("_links");
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&kept).unwrap(), serde_json::Value::Object(expected));
        }
    }
}
