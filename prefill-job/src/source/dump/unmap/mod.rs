//! From an LDAP entry to the object that UDM shows of it.
//!
//! UDM knows of each attribute which property shows it, and how. Here is what it does for `users/user` and
//! `groups/group`, extended attributes included, whose definitions are entries of the dump
//! (docs/decisions/0011). Objects of other types keep the names of their LDAP attributes.

mod certificate;
mod extended;
mod group;
mod secret;
mod syntax;
mod time;
mod user;

use std::collections::{BTreeMap, HashSet};

use model::Dn;
use serde_json::{Map, Value, json};

use super::entry::Attributes;
use super::facts::Facts;

pub(super) use extended::{Definition, UdmOption};
use syntax::As;

/// An object made of an entry.
#[derive(Debug, PartialEq)]
pub(super) struct Unmapped {
    pub object: Value,
    /// Attributes that no property shows, and how often. Not the secrets, which no reader of UDM sees either.
    pub left_out: BTreeMap<String, u64>,
}

/// What an entry is as a member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Host,
    Group,
}

/// Is an entry an object of its type?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// UDM lists it.
    Yes,
    /// It has all classes that UDM asks for, in a dump of the whole directory.
    Complete,
    /// It lacks all of them, as in a dump that was written by hand: UDM would list it only with them.
    Bare,
    /// UDM does not list it.
    No,
}

/// `(attribute, property, how)`.
type Property = (&'static str, &'static str, As);

impl Kind {
    /// `None` of an entry that is no member of a group in UDM.
    pub fn of(entry: &Attributes<'_>) -> Option<Self> {
        if entry.is_a("univentionGroup") {
            Some(Self::Group)
        } else if entry.is_a("univentionHost") {
            Some(Self::Host)
        } else if ["person", "inetOrgPerson", "organizationalPerson"].iter().any(|c| entry.is_a(c)) {
            Some(Self::User)
        } else {
            // What was written by hand may have no classes.
            match entry.object_type().filter(|_| entry.all("objectclass").is_empty())?.split_once('/')? {
                ("users", _) => Some(Self::User),
                ("computers", _) => Some(Self::Host),
                ("groups", _) => Some(Self::Group),
                _ => None,
            }
        }
    }
}

/// Does UDM list an entry among the objects of its type?
pub(super) fn listed(object_type: &str, entry: &Attributes<'_>) -> Listed {
    let (wanted, telling): (&[&str], &[&str]) = match object_type {
        user::TYPE => {
            if user::is_hidden(entry) {
                return Listed::No;
            }
            (&user::CLASSES, &user::ACCOUNT_CLASSES)
        }
        // A person that says to be a group is none; a group without the class may have been written by hand.
        group::TYPE => (&group::CLASSES, &["person", "posixAccount", "sambaSamAccount"]),
        _ => return Listed::Yes,
    };
    if wanted.iter().all(|class| entry.is_a(class)) {
        Listed::Complete
    } else if telling.iter().any(|class| entry.is_a(class)) {
        Listed::No
    } else {
        Listed::Bare
    }
}

/// The name of a type for which [`listed`] asks for classes.
pub(super) fn with_classes(object_type: &str) -> Option<&'static str> {
    [user::TYPE, group::TYPE].into_iter().find(|name| *name == object_type)
}

/// Which attributes of an object are shown as text, whatever its type: their values have to be UTF-8.
pub(super) fn is_text(object_type: &str, attribute: &str) -> bool {
    let (base, option) = attribute.split_once(';').unwrap_or((attribute, ""));
    let of = |table: &[Property]| {
        table.iter().any(|(name, _, how)| name.eq_ignore_ascii_case(base) && how.is_text())
    };
    option.is_empty()
        && match object_type {
            user::TYPE => of(user::PROPERTIES),
            group::TYPE => of(group::PROPERTIES),
            // These are text in every schema.
            _ => of(user::PROPERTIES) || base == "cn" || base == "ou",
        }
}

/// The object of an entry.
pub(super) fn unmap(
    object_type: &str,
    entry: &Attributes<'_>,
    facts: &Facts,
    now: jiff::Timestamp,
) -> Unmapped {
    let mut options = Map::new();
    let mut policies = Map::new();
    let (properties, left_out) = match object_type {
        user::TYPE => user::properties(entry, facts, now, &mut options, &mut policies),
        group::TYPE => group::properties(entry, facts, &mut options, &mut policies),
        _ => as_they_are(entry),
    };
    for policy in entry.texts("univentionpolicyreference") {
        if let Some(name) = facts.policy_of(policy) {
            let of_type = policies.entry(name).or_insert_with(|| json!([]));
            if let Value::Array(of_type) = of_type {
                of_type.push(policy.into());
            }
        }
    }
    let mut object = json!({
        "dn": entry.dn,
        "objectType": object_type,
        "id": Dn::name(entry.dn).unwrap_or_default(),
        "position": Dn::container(entry.dn).unwrap_or_default(),
        "properties": properties,
        "options": options,
        "policies": policies,
    });
    if let Some(uuid) = entry.text("entryuuid") {
        object["uuid"] = uuid.into();
    }
    Unmapped { object, left_out }
}

/// The properties of a table, unset ones included, with those of extended attributes; and what neither knows.
fn mapped(
    entry: &Attributes<'_>,
    table: &[Property],
    used: &[&str],
    definitions: &[Definition],
    options: &HashSet<String>,
) -> (Map<String, Value>, BTreeMap<String, u64>) {
    // Of several properties that show one attribute, UDM fills the one that it came to know last.
    let taken: HashSet<&str> = definitions.iter().map(|definition| definition.attribute.as_str()).collect();
    let mut properties = Map::new();
    for (attribute, property, how) in table {
        let attribute = attribute.to_ascii_lowercase();
        let values = if taken.contains(attribute.as_str()) { &[][..] } else { entry.all(&attribute) };
        properties.insert((*property).to_owned(), how.shown(values));
    }
    extended::add(&mut properties, entry, definitions, options);
    let known = |name: &str| {
        taken.contains(name)
            || used.contains(&name)
            || table.iter().any(|(attribute, ..)| attribute.eq_ignore_ascii_case(name))
    };
    let mut left_out = BTreeMap::new();
    for (name, written, values) in entry.names() {
        if !known(name) && !secret::is_hidden(name) {
            left_out.insert(written.to_owned(), values.len() as u64);
        }
    }
    (properties, left_out)
}

/// Attributes under their own names, each as a list; what is no text, or a secret, is left out.
fn as_they_are(entry: &Attributes<'_>) -> (Map<String, Value>, BTreeMap<String, u64>) {
    let mut properties = Map::new();
    let mut left_out = BTreeMap::new();
    for (_, name, values) in entry.names().filter(|(name, ..)| !secret::is_hidden(name)) {
        let texts: Vec<&str> = values
            .iter()
            .filter_map(|value| std::str::from_utf8(value).ok())
            .filter(|text| !secret::is_hash(text))
            .collect();
        let left = values.len() - texts.len();
        if left > 0 {
            left_out.insert(name.to_owned(), left as u64);
        }
        if !texts.is_empty() {
            properties.insert(name.to_owned(), texts.into());
        }
    }
    (properties, left_out)
}

/// What is no text is shown in base64; a scan has refused it where text is expected.
fn text_of(value: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    std::str::from_utf8(value).map_or_else(|_| STANDARD.encode(value), str::to_owned)
}

#[cfg(test)]
mod tests;
