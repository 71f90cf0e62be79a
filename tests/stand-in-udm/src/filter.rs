//! Filters of lists, as far as a client of names needs them: by UUID, and by the name in the DN.

use crate::object::{Head, rdn_value};

/// A filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// `(&…)`
    All(Vec<Filter>),
    /// `(|…)`
    Any(Vec<Filter>),
    /// `(!…)`
    Not(Box<Filter>),
    /// `(attribute=value)` and its like.
    Compare {
        /// In lower case.
        attribute: String,
        /// How.
        operator: Operator,
        /// In lower case; of `=` it may have wildcards.
        value: String,
    },
}

/// How values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
}

impl Filter {
    /// Reads a filter; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (filter, rest) = Self::first(text)?;
        rest.is_empty().then_some(filter)
    }

    fn first(text: &str) -> Option<(Self, &str)> {
        let inner = text.strip_prefix('(')?;
        let many = |inner: &str| {
            let (mut filters, mut rest) = (Vec::new(), inner.to_owned());
            while !rest.starts_with(')') {
                let (filter, left) = Self::first(&rest)?;
                filters.push(filter);
                rest = left.to_owned();
            }
            Some((filters, rest.len() - 1))
        };
        let (filter, left) = match inner.as_bytes().first()? {
            b'&' => many(&inner[1..]).map(|(filters, left)| (Self::All(filters), left))?,
            b'|' => many(&inner[1..]).map(|(filters, left)| (Self::Any(filters), left))?,
            b'!' => {
                let (filter, rest) = Self::first(&inner[1..])?;
                (Self::Not(Box::new(filter)), rest.strip_prefix(')')?.len())
            }
            _ => {
                let end = inner.find(')')?;
                let (attribute, value) = inner[..end].split_once('=')?;
                let (attribute, operator) = match attribute.as_bytes().last()? {
                    b'>' => (&attribute[..attribute.len() - 1], Operator::AtLeast),
                    b'<' => (&attribute[..attribute.len() - 1], Operator::AtMost),
                    _ => (attribute, Operator::Equal),
                };
                let [attribute, value] = [attribute, value].map(str::to_lowercase);
                (Self::Compare { attribute, operator, value }, inner.len() - end - 1)
            }
        };
        Some((filter, &text[text.len() - left..]))
    }

    /// Does an entry match? What is not known of it matches nothing.
    #[must_use]
    pub fn is_match(&self, head: &Head) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.is_match(head)),
            Self::Any(filters) => filters.iter().any(|filter| filter.is_match(head)),
            Self::Not(filter) => !filter.is_match(head),
            Self::Compare { attribute, operator, value } => {
                let rdn_attribute = head.dn.split('=').next().unwrap_or_default().to_lowercase();
                let known = match attribute.as_str() {
                    "entryuuid" => head.uuid.to_lowercase(),
                    "username" | "name" => head.id.to_lowercase(),
                    other if other == rdn_attribute => rdn_value(&head.dn).to_lowercase(),
                    _ => return false,
                };
                match operator {
                    Operator::Equal => is_like(&known, value),
                    Operator::AtLeast => known >= *value,
                    Operator::AtMost => known <= *value,
                }
            }
        }
    }
}

/// Does a text match a pattern with `*`?
fn is_like(text: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => text == pattern,
        Some((begin, rest)) => text.strip_prefix(begin).is_some_and(|left| {
            rest.is_empty()
                || (0..=left.len()).any(|at| left.get(at..).is_some_and(|left| is_like(left, rest)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_uuid_and_by_name() {
        let head = Head {
            dn: "uid=anna,cn=users,dc=x".to_owned(),
            object_type: "users/user".to_owned(),
            id: "anna".to_owned(),
            position: "cn=users,dc=x".to_owned(),
            uuid: "5d2c0000-0000-1000-9000-000000000001".to_owned(),
            superordinate: None,
            hidden: false,
        };
        for (text, expected) in [
            ("(uid=anna)", true),
            ("(uid=an*)", true),
            ("(uid=*a)", true),
            ("(uid=bert)", false),
            ("(nosuch=x)", false),
            ("(entryUUID=5D2C0000-0000-1000-9000-000000000001)", true),
            (
                "(&(entryUUID>=5d2c0000-0000-0000-0000-000000000000)(entryUUID<=5d2cffff-0000-0000-0000-000000000000))",
                true,
            ),
            (
                "(&(entryUUID>=5d2d0000-0000-0000-0000-000000000000)(entryUUID<=ffff0000-0000-0000-0000-000000000000))",
                false,
            ),
            ("(|(uid=bert)(!(uid=carl)))", true),
        ] {
            assert_eq!(Filter::parse(text).unwrap().is_match(&head), expected, "{text}");
        }
        for text in ["", "((", "uid=anna", "(uid=anna", "(uid)", "(uid=a)(uid=b)", "(&(uid=a)"] {
            assert_eq!(Filter::parse(text), None, "{text}");
        }
    }
}
