//! `groups/group`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::{entry::Attributes, facts::Facts};
use super::{Kind, Property, extended, mapped, syntax::As};

pub(super) const TYPE: &str = "groups/group";
/// The class that UDM asks for.
pub(super) const CLASSES: [&str; 1] = ["univentionGroup"];

/// What UDM's module maps.
pub(super) const PROPERTIES: &[Property] = &[
    ("cn", "name", As::Text),
    ("description", "description", As::Text),
    ("gidNumber", "gidNumber", As::Number),
    ("sambaSID", "sambaRID", As::Rid),
    ("sambaGroupType", "sambaGroupType", As::Text),
    ("univentionGroupType", "adGroupType", As::Text),
    ("univentionSambaPrivilegeList", "sambaPrivileges", As::Texts),
    ("mailPrimaryAddress", "mailAddress", As::Text),
    ("univentionAllowedEmailUsers", "allowedEmailUsers", As::Texts),
    ("univentionAllowedEmailGroups", "allowedEmailGroups", As::Texts),
    ("univentionGuardianMemberRoles", "guardianMemberRoles", As::Texts),
    ("univentionObjectIdentifier", "univentionObjectIdentifier", As::Text),
    ("univentionSourceIAM", "univentionSourceIAM", As::Text),
    ("univentionObjectFlag", "objectFlag", As::Texts),
];

/// Attributes that are shown by others.
const USED: [&str; 4] = ["uniquemember", "memberuid", "memberof", "displayname"];

/// Properties of a group in Samba, and of one in POSIX, which UDM shows only of such groups.
const SAMBA: [&str; 4] = ["sambaRID", "sambaGroupType", "sambaPrivileges", "adGroupType"];
const POSIX: [&str; 7] =
    ["users", "hosts", "nestedGroup", "memberOf", "mailAddress", "allowedEmailUsers", "allowedEmailGroups"];

pub(super) fn properties(
    entry: &Attributes<'_>,
    facts: &Facts,
    options: &mut Map<String, Value>,
    policies: &mut Map<String, Value>,
) -> (Map<String, Value>, BTreeMap<String, u64>) {
    policies.insert("policies/umc".to_owned(), json!([]));
    let own: [(&str, &[&str]); 2] = [("posix", &["posixGroup"]), ("samba", &["sambaGroupMapping"])];
    let enabled = extended::options(entry, &own, facts.options(TYPE), options);
    let (mut properties, left_out) = mapped(entry, PROPERTIES, &USED, facts.definitions(TYPE), &enabled);
    let mut members: [(Kind, &str, Vec<Value>); 3] =
        [(Kind::User, "users", vec![]), (Kind::Host, "hosts", vec![]), (Kind::Group, "nestedGroup", vec![])];
    for member in entry.texts("uniquemember") {
        // What has vanished, or can't be a member, is in none of the lists.
        let kind = facts.kind_of(member);
        if let Some((.., list)) = members.iter_mut().find(|(of, ..)| Some(*of) == kind) {
            list.push(member.into());
        }
    }
    for (_, name, list) in members {
        properties.insert(name.to_owned(), list.into());
    }
    properties.insert("memberOf".to_owned(), facts.groups_with(entry.dn).collect());
    // A SID that does not end with a number has none; a text in its place would be no number to anybody.
    if let Some(rid) = properties.get_mut("sambaRID").filter(|rid| rid.is_string()) {
        *rid = Value::Null;
    }
    for (property, default) in [("sambaGroupType", "2"), ("adGroupType", "-2147483646")] {
        if let Some(value @ Value::Null) = properties.get_mut(property) {
            *value = default.into();
        }
    }
    let (posix, samba) = (enabled.contains("posix"), enabled.contains("samba"));
    // Where nothing tells what the group is, it was written by hand: all is shown.
    if posix || samba {
        properties.retain(|name, _| {
            let name = name.as_str();
            (samba || !SAMBA.contains(&name)) && (posix || !POSIX.contains(&name))
        });
    }
    (properties, left_out)
}
