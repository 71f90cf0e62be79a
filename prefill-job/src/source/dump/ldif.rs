//! LDIF (RFC 2849): from lines to records. Only whole entries are read, as `slapcat` and `ldapsearch` write them;
//! changes are refused.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::entry::Entry;

/// Why lines are no entry, and which line it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LdifError {
    pub line: u64,
    pub problem: String,
}

/// What a group of lines between empty ones is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Block {
    Entry(Entry),
    /// Comments, the version, references to other servers, or that `ldapsearch` went well.
    Nothing,
}

/// Takes the lines of one block, one after the other.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// The line that is being put together of its folded parts, and its number. `None` before the first.
    logical: Option<(u64, Vec<u8>)>,
    comment: bool,
    entry: Option<Entry>,
    /// `ldapsearch` without `-L` ends with a block that tells how it went.
    search: Option<Search>,
    /// `ldapsearch` without `-LLL` writes where the rest of the tree is: no entries of this server.
    is_reference: bool,
}

#[derive(Debug, Default)]
struct Search {
    result: Option<(u64, String)>,
}

impl Parser {
    /// Takes a line that is not empty. After an error the rest of the block is not to be looked at.
    pub fn line(&mut self, line: &[u8], number: u64) -> Result<(), LdifError> {
        if let Some(folded) = line.strip_prefix(b" ") {
            return match (&mut self.logical, self.comment) {
                (_, true) => Ok(()),
                (Some((_, logical)), false) => {
                    logical.extend_from_slice(folded);
                    Ok(())
                }
                (None, false) => {
                    let text = "it begins with a space, but there is no line before it to go on with";
                    Err(LdifError { line: number, problem: text.to_owned() })
                }
            };
        }
        self.end_of_line()?;
        self.comment = line.first() == Some(&b'#');
        if !self.comment {
            self.logical = Some((number, line.to_vec()));
        }
        Ok(())
    }

    /// The block is over.
    pub fn finish(mut self) -> Result<Block, LdifError> {
        self.end_of_line()?;
        match (self.entry, self.search) {
            (Some(entry), _) => Ok(Block::Entry(entry)),
            (None, Some(Search { result: Some((line, result)) }))
                if result.split(' ').next() != Some("0") =>
            {
                let text = format!("ldapsearch did not bring all: it ended with result {result}");
                Err(LdifError { line, problem: text })
            }
            (None, _) => Ok(Block::Nothing),
        }
    }

    fn end_of_line(&mut self) -> Result<(), LdifError> {
        let Some((line, text)) = self.logical.take() else { return Ok(()) };
        self.attribute(&text, line).map_err(|problem| LdifError { line, problem })
    }

    fn attribute(&mut self, text: &[u8], line: u64) -> Result<(), String> {
        let (name, value) = attribute(text).map_err(|problem| self.named(problem))?;
        let small = name.to_ascii_lowercase();
        if let Some(search) = &mut self.search {
            if small == "result" {
                search.result = Some((line, String::from_utf8_lossy(&value).into_owned()));
            }
            return Ok(());
        }
        let Some(entry) = &mut self.entry else {
            match small.as_str() {
                _ if self.is_reference => {
                    if small != "ref" {
                        return Err(format!("a reference to another server has no {name}:"));
                    }
                }
                // Files that were put together have one each.
                "version" if value == b"1" => {}
                "version" => return Err("only version 1 of LDIF is known".to_owned()),
                "ref" => self.is_reference = true,
                "search" => self.search = Some(Search::default()),
                "dn" => {
                    let dn = String::from_utf8(value).map_err(|_| "the DN is not UTF-8".to_owned())?;
                    // Spaces at its ends are no part of it (RFC 4514, 3).
                    let dn = without_spaces(&dn).to_owned();
                    self.entry = Some(Entry { dn, attributes: Vec::new() });
                }
                _ => return Err(format!("a record begins with dn:, and not with {name}:")),
            }
            return Ok(());
        };
        let problem = match small.as_str() {
            "changetype" | "control" => format!(
                "{name}: this is a change, and only whole entries are read: write the dump with slapcat or ldapsearch"
            ),
            "dn" => "a second dn: in the same record: an empty line is missing before it".to_owned(),
            _ => {
                entry.attributes.push((name, value));
                return Ok(());
            }
        };
        Err(self.named(problem))
    }

    /// A problem with the entry that it is in.
    fn named(&self, problem: String) -> String {
        match &self.entry {
            Some(entry) => format!("{}: {problem}", entry.dn),
            None => problem,
        }
    }
}

/// Without the spaces at both ends; one that is escaped belongs to the DN.
fn without_spaces(dn: &str) -> &str {
    let dn = dn.trim_start_matches(' ');
    let end = dn.trim_end_matches(' ');
    let escapes = end.bytes().rev().take_while(|byte| *byte == b'\\').count();
    if escapes % 2 == 1 { dn.get(..=end.len()).unwrap_or(end) } else { end }
}

/// `name: value`, `name:: base64`, `name:< url`.
fn attribute(text: &[u8]) -> Result<(String, Vec<u8>), String> {
    let colon =
        text.iter().position(|byte| *byte == b':').ok_or("there is no colon: name: value is expected")?;
    let (name, rest) = (&text[..colon], &text[colon + 1..]);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b';' | b'_');
    if name.is_empty() || !name.iter().all(plain) {
        return Err("what stands before the colon is no name of an attribute".to_owned());
    }
    let name = String::from_utf8_lossy(name).into_owned();
    let value = match rest.first() {
        Some(b':') => {
            let mut text = rest[1..].to_vec();
            text.retain(|byte| !byte.is_ascii_whitespace());
            STANDARD.decode(text).map_err(|e| format!("the value of {name} is no base64: {e}"))?
        }
        Some(b'<') => {
            return Err(format!(
                "{name}: values from an address (:<) are not fetched: put the value itself here"
            ));
        }
        _ => {
            let value = &rest[rest.iter().take_while(|byte| **byte == b' ').count()..];
            if std::str::from_utf8(value).is_err() {
                return Err(format!("the value of {name} is not UTF-8: write it as base64 ({name}:: …)"));
            }
            value.to_vec()
        }
    };
    Ok((name, value))
}

/// Does a text that begins with this line look like LDIF?
pub(super) fn is_likely(line: &[u8]) -> bool {
    let begins =
        |word: &str| line.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word.as_bytes()));
    line.first() == Some(&b'#') || ["dn:", "version:", "search:", "ref:"].into_iter().any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Block, LdifError> {
        let mut parser = Parser::default();
        for (number, line) in (1..).zip(text.lines()) {
            parser.line(line.as_bytes(), number)?;
        }
        parser.finish()
    }

    fn entry(text: &str) -> Entry {
        match parse(text) {
            Ok(Block::Entry(entry)) => entry,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn entries() {
        for (text, dn, attributes) in [
            ("dn: uid=a\nuid: a", "uid=a", &[("uid", &b"a"[..])][..]),
            ("version: 1\ndn: uid=a", "uid=a", &[]),
            ("# dn: x\n more of the comment\ndn: uid=a\n# in between\nuid: a", "uid=a", &[("uid", b"a")]),
            ("dn: uid=a,\n dc=x\nuid: a\n b\n  c", "uid=a,dc=x", &[("uid", b"ab c")]),
            ("dn:: dWlkPcO8\nsn:: w7w=", "uid=ü", &[("sn", "ü".as_bytes())]),
            ("dn:: dWlk\n Pc\n O8", "uid=ü", &[]),
            (
                "DN:uid=a\nphoto;binary::/9j/\ncn;lang-de:   x y ",
                "uid=a",
                &[("photo;binary", b"\xff\xd8\xff"), ("cn;lang-de", b"x y ")],
            ),
            ("dn: uid=a\nsn:\nsn: ", "uid=a", &[("sn", b""), ("sn", b"")]),
            ("dn: uid=a\nu: http://x:1\nv: <x>", "uid=a", &[("u", b"http://x:1"), ("v", b"<x>")]),
            ("dn:", "", &[]),
            ("dn:  uid=a   \nuid: a", "uid=a", &[("uid", b"a")]),
            ("dn: uid=a\\ ", r"uid=a\ ", &[]),
            ("dn: uid=a\nsn:: w 7\n w= ", "uid=a", &[("sn", "ü".as_bytes())]),
            ("version: 1\nversion: 1\ndn: uid=a\n2.5.4.4: x", "uid=a", &[("2.5.4.4", b"x")]),
            ("dn: uid=a\nref: ldap://x", "uid=a", &[("ref", b"ldap://x")]),
            ("dn: uid=a\nversion: 3", "uid=a", &[("version", b"3")]),
        ] {
            let entry = entry(text);
            let found: Vec<_> = entry.attributes.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
            assert_eq!((entry.dn.as_str(), &*found), (dn, attributes), "{text}");
        }
    }

    #[test]
    fn what_is_no_entry_is_refused_with_its_line() {
        for (text, line, problem) in [
            ("uid: a", 1, "begins with dn:"),
            ("dn: a\n\u{e4}: x", 2, "no name"),
            ("dn: a\nnonsense", 2, "no colon"),
            ("dn: a\n: x", 2, "no name"),
            ("dn: a\nuid: a\nchangetype: add\nadd: x", 3, "only whole entries"),
            ("dn: a\ncontrol: 1.2.3 true", 2, "only whole entries"),
            ("dn: a\nphoto:< file:///etc/passwd", 2, "not fetched"),
            ("dn: a\nphoto:: !!!", 2, "no base64"),
            ("dn: a\nphoto:: QQ", 2, "no base64"),
            ("dn: a\nuid: a\ndn: b", 3, "empty line is missing"),
            (" dn: a", 1, "begins with a space"),
            ("version: 2", 1, "version 1"),
            ("ref: ldap://x\nuid: a", 2, "no uid:"),
            ("dn: uid=anna\nsn:: *", 2, "uid=anna: the value of sn is no base64"),
            ("search: 2\nresult: 10 Referral\nref: ldap://x", 2, "10 Referral"),
            ("search: 2\nresult: 4 Size limit exceeded", 2, "4 Size limit exceeded"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.line == line && error.problem.contains(problem), "{text}: {error:?}");
        }
        let mut parser = Parser::default();
        parser.line(b"dn: a", 1).unwrap();
        parser.line(b"sn: \xfc", 2).unwrap();
        assert!(parser.finish().unwrap_err().problem.contains("not UTF-8"));
    }

    #[test]
    fn what_is_nothing() {
        for text in [
            "",
            "# only a comment",
            "version: 1",
            "search: 2\nresult: 0 Success",
            "# x\nversion: 1",
            "# search reference\nref: ldap://a/dc=x??sub\nref: ldap://b",
            "search: 3\nresult: 0 Success\ncontrol: 1.2.840.113556.1.4.319 false MAA=\npagedresults: cookie=",
        ] {
            assert_eq!(parse(text), Ok(Block::Nothing), "{text}");
        }
    }

    /// A value as a writer of LDIF puts it: plain where that is allowed, folded at any width.
    fn written(name: &str, value: &[u8], width: usize) -> String {
        let safe = |byte: &u8| byte.is_ascii() && !matches!(byte, 0 | b'\n' | b'\r');
        let plain = value.iter().all(safe)
            && !matches!(value.first(), Some(b' ' | b':' | b'<'))
            && value.last() != Some(&b' ');
        let line = match plain {
            true => format!("{name}: {}", String::from_utf8_lossy(value)),
            false => format!("{name}:: {}", STANDARD.encode(value)),
        };
        let (first, mut rest) = line.split_at(width.min(line.len()).max(1));
        let mut folded = first.to_owned();
        while !rest.is_empty() {
            let (part, more) = rest.split_at(width.min(rest.len()));
            folded.push_str("\n ");
            folded.push_str(part);
            rest = more;
        }
        folded
    }

    proptest! {
        #[test]
        fn what_was_written_reads_the_same(
            dn in "(uid|cn)=[^\\p{Cc},]{0,30},dc=x",
            attributes in prop::collection::vec(
                ("[a-zA-Z][a-zA-Z0-9-]{0,12}", prop_oneof![
                    "\\PC{0,40}".prop_map(String::into_bytes),
                    "[ -~]{0,90}".prop_map(String::into_bytes),
                    prop::collection::vec(any::<u8>(), 0..60),
                ]), 0..8),
            width in 1usize..80,
        ) {
            let reserved = ["dn", "changetype", "control"];
            prop_assume!(attributes.iter().all(|(n, _)| !reserved.contains(&n.to_ascii_lowercase().as_str())));
            let mut lines = vec![written("dn", dn.as_bytes(), width)];
            lines.extend(attributes.iter().map(|(name, value)| written(name, value, width)));
            prop_assert_eq!(entry(&lines.join("\n")), Entry { dn, attributes });
        }

        #[test]
        fn nothing_panics(lines in prop::collection::vec("\\PC{0,20}", 0..6)) {
            _ = parse(&lines.join("\n"));
        }
    }
}
