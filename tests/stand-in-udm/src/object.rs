//! One UDM object, and how it looks in each of its three forms: got, listed, dumped.

use serde_json::Value;

use crate::json::{self, Members};
use crate::links::{self, Links};

/// What every form of an object shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Distinguished name.
    pub dn: String,
    /// The module that the object itself belongs to, such as `users/user`.
    pub object_type: String,
    /// The object's own description, e.g. its user name.
    pub id: String,
    /// DN of the container.
    pub position: String,
    /// LDAP's entryUUID.
    pub uuid: String,
    /// DN of the object that this one hangs under, for the modules that have such.
    pub superordinate: Option<String>,
    /// Hidden objects (system accounts, markers) are listed with `hidden=true` only.
    pub hidden: bool,
}

/// An object with all that a GET shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What every form of it shows.
    pub head: Head,
    /// Text of the JSON object's members, in UDM's order, without `uri` and `_links`.
    pub members: String,
    /// Properties that refer to other objects: `(property, DN)`, each of which UDM answers with a link.
    pub references: Vec<(String, String)>,
}

/// Properties whose values are DNs that UDM makes links of.
const REFERRING: [&str; 9] = [
    "groups",
    "primaryGroup",
    "users",
    "hosts",
    "memberOf",
    "nestedGroup",
    "secretary",
    "allowedEmailUsers",
    "allowedEmailGroups",
];

impl Object {
    /// Reads an object from the text of a JSON object, whose bytes are kept as they are.
    ///
    /// # Errors
    /// What is wrong with the text, if it is no JSON object, has no `dn` or `objectType`, or has a key that the
    /// server itself adds (`uri`, `_links`).
    pub fn from_json(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let fields = value.as_object().ok_or("not a JSON object")?;
        for added in ["uri", "_links"] {
            if fields.contains_key(added) {
                return Err(format!("the key {added} is added by the server: leave it out"));
            }
        }
        let field = |key: &str| fields.get(key).and_then(Value::as_str).map(str::to_owned);
        let dn = field("dn").ok_or("the key dn is missing")?;
        let object_type = field("objectType").ok_or("the key objectType is missing")?;
        let head = Head {
            id: field("id").unwrap_or_else(|| rdn_value(&dn).to_owned()),
            position: field("position").unwrap_or_else(|| parent(&dn).to_owned()),
            uuid: field("uuid").unwrap_or_else(|| derived_uuid(&dn)),
            superordinate: field("superordinate"),
            hidden: value.pointer("/properties/objectFlag").is_some_and(|flags| contains(flags, "hidden")),
            object_type,
            dn,
        };
        let members =
            text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or("no braces")?.trim();
        Ok(Self { head, members: members.to_owned(), references: references(&value) })
    }

    /// The answer to a GET. `_links` come first, last but one or last, by object: a client must not rely on a place.
    #[must_use]
    pub fn got(&self, links: &Links) -> String {
        let own = format!("\"_links\": {}", links.of_object(self));
        let uri = format!("\"uri\": {}", json::string(&links.object(&self.head)));
        let members = &self.members;
        match self.head.dn.len() % 3 {
            0 => format!("{{{own}, {members}, {uri}}}"),
            1 => format!("{{{members}, {own}, {uri}}}"),
            _ => format!("{{{members}, {uri}, {own}}}"),
        }
    }

    /// The object without `_links`: a line of a dump, and what a prefill has to bring, byte by byte.
    #[must_use]
    pub fn without_links(&self, links: &Links) -> String {
        format!("{{{}, \"uri\": {}}}", self.members, json::string(&links.object(&self.head)))
    }
}

impl Head {
    /// The entry of a list with `opened=0`.
    #[must_use]
    pub fn listed(&self, links: &Links) -> String {
        let uri = links.object(self);
        let mut own = Members::default();
        own.string("href", &uri).string("name", &self.dn).string("title", &self.id);
        let mut entry = Members::default();
        entry.string("dn", &self.dn).string("objectType", &self.object_type).string("id", &self.id);
        entry.string("position", &self.position).raw("properties", "{}").string("uuid", &self.uuid);
        entry.string("uri", &uri);
        if let Some(superordinate) = &self.superordinate {
            entry.string("superordinate", superordinate);
        }
        entry.raw("_links", &format!("{{\"self\": [{}]}}", own.into_object()));
        entry.into_object()
    }
}

fn contains(list: &Value, word: &str) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|flag| flag == word))
}

fn references(object: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for property in REFERRING {
        let dns: Vec<&str> = match object.pointer(&format!("/properties/{property}")) {
            Some(Value::String(dn)) => vec![dn],
            Some(Value::Array(dns)) => dns.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        found.extend(dns.into_iter().map(|dn| (property.to_owned(), dn.to_owned())));
    }
    found
}

/// Where the first RDN ends: at the first comma that is not escaped.
fn first_comma(dn: &str) -> Option<usize> {
    let mut escaped = false;
    dn.bytes().position(|byte| {
        let found = byte == b',' && !escaped;
        escaped = byte == b'\\' && !escaped;
        found
    })
}

/// The DN of the container.
#[must_use]
pub fn parent(dn: &str) -> &str {
    first_comma(dn).map_or("", |comma| &dn[comma + 1..])
}

/// The value of the first RDN, still escaped.
#[must_use]
pub fn rdn_value(dn: &str) -> &str {
    let rdn = first_comma(dn).map_or(dn, |comma| &dn[..comma]);
    rdn.split_once('=').map_or(rdn, |(_, value)| value)
}

/// A UUID that is always the same for a DN.
#[must_use]
pub fn derived_uuid(dn: &str) -> String {
    let [high, low] = [1, 2].map(|salt| links::fingerprint(salt, dn));
    format!(
        "{:08x}-{:04x}-1{:03x}-9{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dn_is_taken_apart_at_commas_that_are_not_escaped() {
        for (dn, value, above) in [
            ("uid=a,cn=users,dc=x", "a", "cn=users,dc=x"),
            (r"ou=Einkauf\, Süd,dc=x", r"Einkauf\, Süd", "dc=x"),
            (r"cn=a\\,dc=x", r"a\\", "dc=x"),
            ("dc=x", "x", ""),
        ] {
            assert_eq!((rdn_value(dn), parent(dn)), (value, above), "{dn}");
        }
    }

    #[test]
    fn the_bytes_of_an_object_are_kept() {
        let text = r#"{"objectType":"a/b",  "dn":"cn=x,dc=y", "properties": {"n": 2.0, "big": 123456789012345678901234567890, "users":["uid=1,dc=y"]}}"#;
        let object = Object::from_json(text).unwrap();
        assert_eq!(format!("{{{}}}", object.members), text);
        assert_eq!(object.references, [("users".to_owned(), "uid=1,dc=y".to_owned())]);
        assert_eq!((object.head.id.as_str(), object.head.position.as_str()), ("x", "dc=y"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bad in ["", "[]", "{}", r#"{"dn":"x"}"#, r#"{"dn":"x","objectType":"a/b","uri":"x"}"#] {
            assert!(Object::from_json(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_derived_uuid_is_one() {
        let uuid = derived_uuid("uid=a,dc=x");
        assert_eq!(uuid, derived_uuid("uid=a,dc=x"));
        assert_ne!(uuid, derived_uuid("uid=b,dc=x"));
        assert_eq!(uuid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    }
}
