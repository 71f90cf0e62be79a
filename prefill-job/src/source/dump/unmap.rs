//! From an LDAP entry to an object as UDM would show it, as far as that can be told from one entry alone.
//!
//! UDM knows of each attribute which property shows it, and how. Here is what it does for `users/user` and
//! `groups/group` (docs/decisions/0011). Objects of other types keep the names of their LDAP attributes.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::Dn;
use serde_json::{Map, Value, json};

use super::ldif::Entry;

/// An object made of an entry.
#[derive(Debug, PartialEq)]
pub(super) struct Unmapped {
    pub object_type: String,
    pub object: Value,
    /// Attributes that no property shows, and how often. Not the secrets, which no reader of UDM sees either.
    pub left_out: BTreeMap<String, u64>,
}

/// How a property shows an attribute.
#[derive(Clone, Copy, Debug)]
enum As {
    /// The first value, as text; `null` if there is none.
    Text,
    /// All values, as texts.
    Texts,
    /// The first value, as a number.
    Number,
    /// The first value in base64: it need not be text.
    Base64,
    /// The last part of a SID, as a number.
    Rid,
    /// Texts with commas between them.
    Split,
}

type Property = (&'static str, &'static str, As);

/// `(attribute, property, how)`: what UDM's module `users/user` maps.
const USER: &[Property] = &[
    ("uid", "username", As::Text),
    ("givenName", "firstname", As::Text),
    ("sn", "lastname", As::Text),
    ("displayName", "displayName", As::Text),
    ("title", "title", As::Text),
    ("initials", "initials", As::Text),
    ("description", "description", As::Text),
    ("gecos", "gecos", As::Text),
    ("o", "organisation", As::Text),
    ("employeeNumber", "employeeNumber", As::Text),
    ("employeeType", "employeeType", As::Text),
    ("departmentNumber", "departmentNumber", As::Texts),
    ("secretary", "secretary", As::Texts),
    ("univentionBirthday", "birthday", As::Text),
    ("jpegPhoto", "jpegPhoto", As::Base64),
    ("mail", "e-mail", As::Texts),
    ("mailPrimaryAddress", "mailPrimaryAddress", As::Text),
    ("mailAlternativeAddress", "mailAlternativeAddress", As::Texts),
    ("mailForwardAddress", "mailForwardAddress", As::Texts),
    ("mailForwardCopyToSelf", "mailForwardCopyToSelf", As::Text),
    ("univentionMailHomeServer", "mailHomeServer", As::Text),
    ("telephoneNumber", "phone", As::Texts),
    ("homePhone", "homeTelephoneNumber", As::Texts),
    ("mobile", "mobileTelephoneNumber", As::Texts),
    ("pager", "pagerTelephoneNumber", As::Texts),
    ("street", "street", As::Text),
    ("l", "city", As::Text),
    ("postalCode", "postcode", As::Text),
    ("postOfficeBox", "postOfficeBox", As::Texts),
    ("c", "country", As::Text),
    ("st", "state", As::Text),
    ("roomNumber", "roomNumber", As::Texts),
    ("physicalDeliveryOfficeName", "physicalDeliveryOfficeName", As::Text),
    ("preferredDeliveryMethod", "preferredDeliveryMethod", As::Text),
    ("preferredLanguage", "preferredLanguage", As::Text),
    ("uidNumber", "uidNumber", As::Number),
    ("gidNumber", "gidNumber", As::Number),
    ("homeDirectory", "unixhome", As::Text),
    ("loginShell", "shell", As::Text),
    ("sambaSID", "sambaRID", As::Rid),
    ("sambaHomePath", "sambahome", As::Text),
    ("sambaHomeDrive", "homedrive", As::Text),
    ("sambaLogonScript", "scriptpath", As::Text),
    ("sambaProfilePath", "profilepath", As::Text),
    ("sambaUserWorkstations", "sambaUserWorkstations", As::Split),
    ("univentionPasswordSelfServiceEmail", "PasswordRecoveryEmail", As::Text),
    ("univentionPasswordSelfServiceMobile", "PasswordRecoveryMobile", As::Text),
    ("memberOf", "groups", As::Texts),
    ("univentionObjectIdentifier", "univentionObjectIdentifier", As::Text),
    ("univentionSourceIAM", "univentionSourceIAM", As::Text),
    ("univentionObjectFlag", "objectFlag", As::Texts),
];

/// The same of `groups/group`.
const GROUP: &[Property] = &[
    ("cn", "name", As::Text),
    ("description", "description", As::Text),
    ("gidNumber", "gidNumber", As::Number),
    ("sambaSID", "sambaRID", As::Rid),
    ("sambaGroupType", "sambaGroupType", As::Text),
    ("univentionGroupType", "adGroupType", As::Text),
    ("mailPrimaryAddress", "mailAddress", As::Text),
    ("memberOf", "memberOf", As::Texts),
    ("univentionAllowedEmailUsers", "allowedEmailUsers", As::Texts),
    ("univentionAllowedEmailGroups", "allowedEmailGroups", As::Texts),
    ("univentionObjectIdentifier", "univentionObjectIdentifier", As::Text),
    ("univentionSourceIAM", "univentionSourceIAM", As::Text),
    ("univentionObjectFlag", "objectFlag", As::Texts),
];

/// What nobody reads through UDM, in lower case.
const SECRETS: [&str; 11] = [
    "userpassword",
    "authpassword",
    "krb5key",
    "sambantpassword",
    "sambalmpassword",
    "sambapasswordhistory",
    "pwhistory",
    "sambaclearttextpassword",
    "sambapreviouscleartextpassword",
    "univentionpasswordselfservicetoken",
    "univentionradiuspassword",
];

/// What the server or UDM keeps for itself, or what the object shows elsewhere than in its properties, in lower case.
const NO_PROPERTIES: [&str; 15] = [
    "objectclass",
    "structuralobjectclass",
    "univentionobjecttype",
    "entryuuid",
    "entrycsn",
    "entrydn",
    "creatorsname",
    "createtimestamp",
    "modifiersname",
    "modifytimestamp",
    "subschemasubentry",
    "hassubordinates",
    "contextcsn",
    "sambaacctflags",
    "krb5kdcflags",
];

/// The object of an entry; `None` if UDM does not know it, as it has no `univentionObjectType`.
pub(super) fn unmap(entry: &Entry) -> Option<Unmapped> {
    let first = |name: &str| values(entry, name).next();
    let text = |name: &str| first(name).and_then(|value| std::str::from_utf8(value).ok());
    let object_type = text("univentionObjectType").filter(|name| !name.is_empty())?.to_owned();
    let (properties, left_out) = match object_type.as_str() {
        "users/user" => user(entry),
        "groups/group" => group(entry),
        _ => (as_they_are(entry), BTreeMap::new()),
    };
    let id = match object_type.as_str() {
        "users/user" => text("uid").map(str::to_owned),
        "groups/group" => text("cn").map(str::to_owned),
        _ => None,
    };
    let mut object = json!({
        "dn": entry.dn,
        "objectType": object_type,
        "id": id.or_else(|| Dn::first_value(&entry.dn)).unwrap_or_default(),
        "position": Dn::split_first(&entry.dn).1.unwrap_or_default().trim_start(),
        "properties": properties,
        "options": {},
        "policies": {},
    });
    if let Some(uuid) = text("entryUUID") {
        object["uuid"] = uuid.into();
    }
    Some(Unmapped { object_type, object, left_out })
}

fn values<'a>(entry: &'a Entry, name: &str) -> impl Iterator<Item = &'a [u8]> {
    entry
        .attributes
        .iter()
        .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_slice())
}

fn user(entry: &Entry) -> (Map<String, Value>, BTreeMap<String, u64>) {
    let (mut properties, left_out) = mapped(entry, USER, &["cn", "shadowLastChange"]);
    let flags = values(entry, "sambaAcctFlags").next().unwrap_or_default();
    // The flag "invalid" of Heimdal's KDC.
    let invalid = values(entry, "krb5KDCFlags").next().and_then(number).is_some_and(|flags| flags & 128 != 0);
    properties.insert("disabled".to_owned(), (flags.contains(&b'D') || invalid).into());
    properties.insert("locked".to_owned(), flags.contains(&b'L').into());
    properties.insert("password".to_owned(), Value::Null);
    (properties, left_out)
}

fn group(entry: &Entry) -> (Map<String, Value>, BTreeMap<String, u64>) {
    let (mut properties, left_out) = mapped(entry, GROUP, &["uniqueMember", "memberUid"]);
    let hosts: std::collections::HashSet<&[u8]> =
        values(entry, "memberUid").filter_map(|uid| uid.strip_suffix(b"$")).collect();
    let (mut users, mut computers, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    for member in values(entry, "uniqueMember") {
        let member = text_of(member);
        let (rdn, _) = Dn::split_first(&member);
        // What a member is stands in another entry; its name tells it, too.
        let kind = match rdn.split_once('=') {
            Some((attribute, name)) if attribute.eq_ignore_ascii_case("cn") => {
                if hosts.contains(name.as_bytes()) { &mut computers } else { &mut groups }
            }
            _ => &mut users,
        };
        kind.push(Value::String(member));
    }
    for (name, members) in [("users", users), ("hosts", computers), ("nestedGroup", groups)] {
        properties.insert(name.to_owned(), members.into());
    }
    (properties, left_out)
}

/// The properties that a table knows, unset ones included; and what it does not know.
fn mapped(entry: &Entry, table: &[Property], used: &[&str]) -> (Map<String, Value>, BTreeMap<String, u64>) {
    let property = |(attribute, property, how): &Property| {
        ((*property).to_owned(), shown(values(entry, attribute), *how))
    };
    let properties = table.iter().map(property).collect();
    let mut left_out = BTreeMap::new();
    for (name, _) in &entry.attributes {
        let known = |(attribute, _, _): &Property| attribute.eq_ignore_ascii_case(name);
        let used = used.iter().any(|used| used.eq_ignore_ascii_case(name));
        if !used && !is_hidden(name) && !table.iter().any(known) {
            *left_out.entry(name.clone()).or_default() += 1;
        }
    }
    (properties, left_out)
}

/// Attributes under their own names, each as a list.
fn as_they_are(entry: &Entry) -> Map<String, Value> {
    let mut properties = Map::new();
    for (name, value) in entry.attributes.iter().filter(|(name, _)| !is_hidden(name)) {
        if let Value::Array(values) = properties.entry(name.clone()).or_insert_with(|| json!([])) {
            values.push(text_of(value).into());
        }
    }
    properties
}

fn is_hidden(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRETS.contains(&name.as_str()) || NO_PROPERTIES.contains(&name.as_str())
}

fn shown<'a>(mut values: impl Iterator<Item = &'a [u8]>, how: As) -> Value {
    let first = |values: &mut dyn Iterator<Item = &'a [u8]>, show: &dyn Fn(&[u8]) -> Option<Value>| {
        values.next().and_then(show).unwrap_or(Value::Null)
    };
    match how {
        As::Text => first(&mut values, &|value| Some(text_of(value).into())),
        As::Texts => values.map(text_of).collect(),
        As::Number => first(&mut values, &|value| number(value).map(Value::from)),
        As::Base64 => first(&mut values, &|value| Some(STANDARD.encode(value).into())),
        As::Rid => first(&mut values, &|value| number(value.rsplit(|b| *b == b'-').next()?).map(Value::from)),
        As::Split => {
            let all = values.next().map(text_of).unwrap_or_default();
            all.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
        }
    }
}

fn number(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// What is no text is shown in base64.
fn text_of(value: &[u8]) -> String {
    std::str::from_utf8(value).map_or_else(|_| STANDARD.encode(value), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(dn: &str, attributes: &[(&str, &str)]) -> Entry {
        let attribute = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
        Entry { dn: dn.to_owned(), attributes: attributes.iter().map(attribute).collect() }
    }

    #[test]
    fn a_user() {
        let mut entry = entry(
            "uid=anna,cn=users,dc=example,dc=org",
            &[
                ("objectClass", "person"),
                ("UniventionObjectType", "users/user"),
                ("entryUUID", "613492ea-6156-103f-9c22-b957091217b2"),
                ("uid", "anna"),
                ("cn", "Anna Müller"),
                ("sn", "Müller"),
                ("uidNumber", "2003"),
                ("sambaSID", "S-1-5-21-1-2-3-5006"),
                ("mail", "a@x"),
                ("mail", "b@x"),
                ("memberOf", "cn=staff,dc=example,dc=org"),
                ("sambaAcctFlags", "[UD         ]"),
                ("userPassword", "{crypt}hunter2"),
                ("krb5Key", "hunter2"),
                ("oxTimeZone", "x"),
                ("homePostalAddress", "x"),
                ("homePostalAddress", "y"),
            ],
        );
        entry.attributes.push(("jpegPhoto".into(), vec![0xff, 0xd8, 0xff]));
        let Unmapped { object_type, object, left_out } = unmap(&entry).unwrap();
        assert_eq!(object_type, "users/user");
        assert_eq!(
            left_out,
            BTreeMap::from([("oxTimeZone".to_owned(), 1), ("homePostalAddress".to_owned(), 2)])
        );
        assert_eq!(object["id"], "anna");
        assert_eq!(object["position"], "cn=users,dc=example,dc=org");
        assert_eq!(object["uuid"], "613492ea-6156-103f-9c22-b957091217b2");
        for (property, expected) in [
            ("username", json!("anna")),
            ("lastname", json!("Müller")),
            ("firstname", Value::Null),
            ("e-mail", json!(["a@x", "b@x"])),
            ("phone", json!([])),
            ("uidNumber", json!(2003)),
            ("sambaRID", json!(5006)),
            ("groups", json!(["cn=staff,dc=example,dc=org"])),
            ("jpegPhoto", json!("/9j/")),
            ("disabled", json!(true)),
            ("locked", json!(false)),
            ("password", Value::Null),
        ] {
            assert_eq!(object["properties"][property], expected, "{property}");
        }
        assert!(!object.to_string().contains("hunter2"));
    }

    #[test]
    fn a_group_and_its_members() {
        let entry = entry(
            "cn=staff,cn=groups,dc=x",
            &[
                ("univentionObjectType", "groups/group"),
                ("cn", "staff"),
                ("gidNumber", "5013"),
                ("uniqueMember", "uid=anna,cn=users,dc=x"),
                ("uniqueMember", "cn=pc1,cn=computers,dc=x"),
                ("uniqueMember", "cn=teachers,cn=groups,dc=x"),
                ("memberUid", "anna"),
                ("memberUid", "pc1$"),
            ],
        );
        let unmapped = unmap(&entry).unwrap();
        assert!(unmapped.left_out.is_empty(), "{:?}", unmapped.left_out);
        let properties = &unmapped.object["properties"];
        assert_eq!(properties["name"], "staff");
        assert_eq!(properties["gidNumber"], 5013);
        assert_eq!(properties["users"], json!(["uid=anna,cn=users,dc=x"]));
        assert_eq!(properties["hosts"], json!(["cn=pc1,cn=computers,dc=x"]));
        assert_eq!(properties["nestedGroup"], json!(["cn=teachers,cn=groups,dc=x"]));
    }

    #[test]
    fn other_types_keep_the_names_of_ldap() {
        let entry = entry(
            r"cn=a\,b,cn=portal,dc=x",
            &[
                ("univentionObjectType", "portals/entry"),
                ("cn", "a,b"),
                ("cn", "c"),
                ("userPassword", "secret"),
            ],
        );
        let unmapped = unmap(&entry).unwrap();
        assert_eq!(
            unmapped.object,
            json!({"dn": r"cn=a\,b,cn=portal,dc=x", "objectType": "portals/entry", "id": "a,b",
                   "position": "cn=portal,dc=x", "properties": {"cn": ["a,b", "c"]}, "options": {}, "policies": {}})
        );
    }

    #[test]
    fn without_a_type_it_is_no_object() {
        assert_eq!(unmap(&entry("cn=admin,dc=x", &[("cn", "admin")])), None);
        assert_eq!(unmap(&entry("cn=admin,dc=x", &[("univentionObjectType", "")])), None);
    }
}
