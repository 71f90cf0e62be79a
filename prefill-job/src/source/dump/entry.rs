//! An LDAP entry, and its attributes by name.

use std::collections::HashMap;

use model::string_prep::attribute_name;

/// An entry of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub dn: String,
    /// Attributes and values, in the order of the file. A name has its options (RFC 4512, 2.5): `cn;lang-de`.
    pub attributes: Vec<(String, Vec<u8>)>,
}

/// The attributes of an entry, found by name.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    pub dn: &'a str,
    by_name: HashMap<String, Named<'a>>,
}

/// An attribute.
#[derive(Debug)]
struct Named<'a> {
    /// Its name as the file has it.
    written: &'a str,
    values: Vec<&'a [u8]>,
}

impl Entry {
    /// Its attributes, found by name.
    pub fn attributes(&self) -> Attributes<'_> {
        let mut by_name = HashMap::<String, Named<'_>>::with_capacity(self.attributes.len());
        // Values of one attribute mostly follow each other.
        let mut last: Option<(&str, String)> = None;
        for (written, value) in &self.attributes {
            let name = match &last {
                Some((same, name)) if same == written => name.clone(),
                _ => attribute_name(written).into_owned(),
            };
            match by_name.get_mut(&name) {
                Some(named) => named.values.push(value),
                None => _ = by_name.insert(name.clone(), Named { written, values: vec![value] }),
            }
            last = Some((written, name));
        }
        Attributes { dn: &self.dn, by_name }
    }
}

impl<'a> Attributes<'a> {
    /// All values of an attribute, named as [`attribute_name`] does.
    pub fn all(&self, name: &str) -> &[&'a [u8]] {
        self.by_name.get(name).map_or(&[], |named| &named.values)
    }

    /// The first value.
    pub fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).first().copied()
    }

    /// The first value, if it is text.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.first(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All values that are text.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.all(name).iter().filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// The first value as a whole number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.trim().parse().ok()
    }

    /// Its type in UDM; `None` if UDM does not know it.
    pub fn object_type(&self) -> Option<&'a str> {
        self.text("univentionobjecttype").filter(|name| !name.is_empty())
    }

    /// Is it of this object class, in whatever letters?
    pub fn is_a(&self, class: &str) -> bool {
        self.all("objectclass").iter().any(|value| value.eq_ignore_ascii_case(class.as_bytes()))
    }

    /// Its attributes: the one name of each, as the file has it, and the values.
    pub fn names(&self) -> impl Iterator<Item = (&str, &'a str, &[&'a [u8]])> {
        self.by_name.iter().map(|(name, named)| (name.as_str(), named.written, named.values.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_with_an_option_is_another_one() {
        let attribute = |(name, value): (&str, &str)| (name.to_owned(), value.as_bytes().to_vec());
        let entry = Entry {
            dn: "uid=a".to_owned(),
            attributes: [
                ("sn;lang-ja", "x"),
                ("surname", "a"),
                ("2.5.4.4", "b"),
                ("OBJECTCLASS", "Person"),
                ("n", " 7 "),
            ]
            .map(attribute)
            .to_vec(),
        };
        let attributes = entry.attributes();
        assert_eq!(attributes.all("sn"), [b"a", b"b"]);
        assert_eq!(attributes.text("sn;lang-ja"), Some("x"));
        assert!(attributes.is_a("person") && !attributes.is_a("top"));
        assert_eq!((attributes.number("n"), attributes.number("sn")), (Some(7), None));
        assert_eq!(attributes.object_type(), None);
    }
}
