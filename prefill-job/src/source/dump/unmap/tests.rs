use super::super::entry::Entry;
use super::*;

/// 26 November 2026.
const NOW: i64 = 1_795_700_000;

fn entry(dn: &str, attributes: &[(&str, &str)]) -> Entry {
    let attribute = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
    Entry { dn: dn.to_owned(), attributes: attributes.iter().map(attribute).collect() }
}

/// What a whole dump tells of its entries.
fn facts(entries: &[Entry]) -> Facts {
    let mut facts = Facts::default();
    for entry in entries {
        assert!(facts.note(&entry.attributes()), "{}", entry.dn);
    }
    facts
}

fn object(entry: &Entry, facts: &Facts) -> Value {
    let attributes = entry.attributes();
    let object_type = attributes.object_type().unwrap();
    unmap(object_type, &attributes, facts, jiff::Timestamp::from_second(NOW).unwrap()).object
}

fn user(attributes: &[(&str, &str)]) -> Value {
    let mut entry = entry("uid=anna,cn=users,dc=x", attributes);
    entry.attributes.push(("univentionObjectType".to_owned(), b"users/user".to_vec()));
    object(&entry, &Facts::default())["properties"].take()
}

fn group(name: &str, more: &[(&str, &str)]) -> Entry {
    let mut group = entry(
        &format!("cn={name},cn=groups,dc=x"),
        &[
            ("objectClass", "univentionGroup"),
            ("objectClass", "posixGroup"),
            ("univentionObjectType", "groups/group"),
            ("cn", name),
        ],
    );
    group.attributes.extend(entry("", more).attributes);
    group
}

#[test]
fn a_user_has_all_keys_with_the_defaults_of_udm() {
    let properties = user(&[("uid", "anna"), ("givenName", "Änne"), ("sn", "Łoś")]);
    assert_eq!(properties.as_object().unwrap().len(), 70);
    for (property, expected) in [
        ("displayName", json!("Änne Łoś")),
        ("gecos", json!("Aenne Los")),
        ("unixhome", json!("/home/anna")),
        ("shell", json!("/bin/bash")),
        ("homeSharePath", json!("anna")),
        ("mailForwardCopyToSelf", json!("0")),
        ("disabled", json!(false)),
        ("locked", json!(false)),
        ("unlock", json!(false)),
        ("unlockTime", json!("")),
        ("lockedTime", Value::Null),
        ("pwdChangeNextLogin", json!(false)),
        ("passwordexpiry", Value::Null),
        ("userexpiry", Value::Null),
        ("umcProperty", json!({})),
        ("homePostalAddress", json!([])),
        ("sambaPrivileges", json!([])),
        ("sambaLogonHours", Value::Null),
        ("guardianInheritedRoles", json!([])),
        ("primaryGroup", Value::Null),
        ("password", Value::Null),
        (
            "accountActivationDate",
            json!({"activation-date": null, "activation-time": null, "activation-timezone": "Etc/UTC"}),
        ),
    ] {
        assert_eq!(properties[property], expected, "{property}");
    }
}

#[test]
fn states_are_computed_as_udm_does() {
    let (off, bit) = (("sambaAcctFlags", "[UD         ]"), ("krb5KDCFlags", "254"));
    let locked = ("userPassword", "{crypt}!$6$x");
    let past = ("shadowExpire", "20000");
    for (attributes, property, expected) in [
        (&[off, bit, ("shadowExpire", "1")][..], "disabled", json!(true)),
        (&[off, bit, past], "disabled", json!(true)),
        (&[off, bit, ("shadowExpire", "99999")], "disabled", json!(false)),
        (&[off, bit, locked], "disabled", json!(true)),
        (&[off, locked], "disabled", json!(false)),
        (&[bit, locked], "disabled", json!(false)),
        (&[off, ("krb5KDCFlags", "126"), locked], "disabled", json!(false)),
        (&[("sambaAcctFlags", "[UL         ]")], "locked", json!(true)),
        (&[("krb5KDCFlags", "131198")], "locked", json!(true)),
        (&[("krb5KDCFlags", "x")], "locked", json!(false)),
        (&[("krb5ValidEnd", "20301231000000Z"), past], "userexpiry", json!("2030-12-31")),
        (&[("sambaKickoffTime", "1924905600"), past], "userexpiry", json!("2031-01-01")),
        (&[past], "userexpiry", json!("2024-10-04")),
        (&[("shadowExpire", "1")], "userexpiry", Value::Null),
        (&[("shadowExpire", "99999999999")], "userexpiry", Value::Null),
        (&[("shadowLastChange", "20782"), ("shadowMax", "0")], "passwordexpiry", json!("2026-11-26")),
        (&[("shadowLastChange", "20782"), ("shadowMax", "0")], "pwdChangeNextLogin", json!(true)),
        (&[("shadowLastChange", "20782"), ("shadowMax", "1")], "pwdChangeNextLogin", json!(false)),
        (&[("shadowLastChange", "0")], "pwdChangeNextLogin", json!(true)),
        (&[("shadowMax", "30")], "passwordexpiry", Value::Null),
        (
            &[("krb5ValidStart", "20300101050000Z")],
            "accountActivationDate",
            json!({"activation-date": "2030-01-01", "activation-time": "05:00", "activation-timezone": "UTC"}),
        ),
        (&[("mailPrimaryAddress", "Anna@Example.ORG")], "mailPrimaryAddress", json!("anna@example.org")),
        (&[("mailForwardCopyToSelf", "1")], "mailForwardCopyToSelf", json!("1")),
        (
            &[("mailPrimaryAddress", "A@x"), ("mailForwardAddress", "a@x"), ("mailForwardAddress", "b@x")],
            "mailForwardCopyToSelf",
            json!("1"),
        ),
        (
            &[("mailPrimaryAddress", "A@x"), ("mailForwardAddress", "a@x"), ("mailForwardAddress", "b@x")],
            "mailForwardAddress",
            json!(["b@x"]),
        ),
        (&[("sn", "a"), ("sn;lang-de", "b")], "lastname", json!("a")),
        (&[("sn;lang-de", "b")], "lastname", Value::Null),
        (&[("surname", "a")], "lastname", json!("a")),
    ] {
        assert_eq!(user(attributes)[property], expected, "{property} {attributes:?}");
    }
}

#[test]
fn an_account_is_locked_until_the_domain_says() {
    let locked = [
        ("uid", "anna"),
        ("sambaBadPasswordTime", "134000000000000000"),
        ("univentionObjectType", "users/user"),
    ];
    let user = entry("uid=anna,dc=x", &locked);
    let domain =
        |duration| entry("cn=d,dc=x", &[("objectClass", "sambaDomain"), ("sambaLockoutDuration", duration)]);
    for (domain, expected) in
        [(vec![], ""), (vec![domain("0")], "unlimited"), (vec![domain("60")], "2025-08-18 14:14:20")]
    {
        let properties = object(&user, &facts(&domain))["properties"].take();
        assert_eq!(properties["lockedTime"], "20250818141320Z");
        assert_eq!(properties["unlockTime"], expected);
    }
}

#[test]
fn a_group_shows_its_members_by_what_they_are() {
    let typed = |dn: &str, class: &str| entry(dn, &[("objectClass", class)]);
    let staff = group(
        "staff",
        &[
            ("objectClass", "sambaGroupMapping"),
            ("gidNumber", "5013"),
            ("sambaSID", "S-1-5-21-7-513"),
            ("uniqueMember", "uid=anna,cn=users,dc=x"),
            ("uniqueMember", "CN=PC1, cn=computers,dc=x"),
            ("uniqueMember", "cn=Teachers,cn=groups,dc=x"),
            ("uniqueMember", "cn=boss,cn=users,dc=x"),
            ("uniqueMember", "cn=vanished,cn=groups,dc=x"),
            ("uniqueMember", "cn=groups,dc=x"),
            ("memberOf", "cn=former,dc=x"),
            ("memberUid", "anna"),
        ],
    );
    let all = [
        staff.clone(),
        group("teachers", &[]),
        group("all", &[("uniqueMember", "cn=Staff,cn=groups,dc=x")]),
        typed("cn=pc1,cn=computers,dc=x", "univentionHost"),
        typed("cn=boss,cn=users,dc=x", "person"),
        typed("cn=groups,dc=x", "organizationalRole"),
    ];
    let facts = facts(&all);
    let object = object(&staff, &facts);
    let properties = object["properties"].as_object().unwrap();
    assert_eq!(properties.len(), 18);
    for (property, expected) in [
        ("users", json!(["uid=anna,cn=users,dc=x", "cn=boss,cn=users,dc=x"])),
        ("hosts", json!(["CN=PC1, cn=computers,dc=x"])),
        ("nestedGroup", json!(["cn=Teachers,cn=groups,dc=x"])),
        ("memberOf", json!(["cn=all,cn=groups,dc=x"])),
        ("sambaRID", json!(513)),
        ("sambaGroupType", json!("2")),
        ("adGroupType", json!("-2147483646")),
    ] {
        assert_eq!(properties[property], expected, "{property}");
    }
    assert_eq!(object["options"], json!({"posix": true, "samba": true}));
    assert_eq!(object["policies"], json!({"policies/umc": []}));
    assert_eq!(facts.group_of("5013"), Some("cn=staff,cn=groups,dc=x"));
    // What only groups of Samba have.
    let plain = super::tests::object(&group("plain", &[]), &facts);
    assert_eq!(plain["options"], json!({"posix": true, "samba": false}));
    assert_eq!(plain["properties"].get("sambaRID"), None);
}

#[test]
fn policies_and_the_primary_group_are_found_in_other_entries() {
    let anna = entry(
        r"uid=anna,ou=a\2Cb,dc=x",
        &[
            ("univentionObjectType", "users/user"),
            ("entryUUID", "613492ea-6156-103f-9c22-b957091217b2"),
            ("gidNumber", "5001"),
            ("univentionPolicyReference", "cn=strict,cn=policies,dc=x"),
            ("univentionPolicyReference", "cn=vanished,cn=policies,dc=x"),
        ],
    );
    let strict = entry("cn=Strict,cn=policies,dc=x", &[("univentionObjectType", "policies/pwhistory")]);
    let facts = facts(&[group("users", &[("gidNumber", "5001")]), strict]);
    let object = object(&anna, &facts);
    assert_eq!(
        object["policies"],
        json!({"policies/desktop": [], "policies/pwhistory": ["cn=strict,cn=policies,dc=x"], "policies/umc": []})
    );
    assert_eq!(object["properties"]["primaryGroup"], "cn=users,cn=groups,dc=x");
    assert_eq!(object["position"], r"ou=a\,b,dc=x");
    assert_eq!(object["id"], "anna");
    assert_eq!(object["uuid"], "613492ea-6156-103f-9c22-b957091217b2");
    assert_eq!(object["options"], json!({"pki": false}));
}

fn definition(name: &str, attribute: &str, syntax: &str, more: &[(&str, &str)]) -> Entry {
    let mut definition = entry(
        &format!("cn={name},cn=custom attributes,cn=univention,dc=x"),
        &[
            ("objectClass", "univentionUDMProperty"),
            ("univentionUDMPropertyVersion", "2"),
            ("univentionUDMPropertyModule", "users/user"),
            ("univentionUDMPropertyCLIName", name),
            ("univentionUDMPropertyLdapMapping", attribute),
            ("univentionUDMPropertySyntax", syntax),
        ],
    );
    definition.attributes.extend(entry("", more).attributes);
    definition
}

#[test]
fn extended_attributes_come_from_their_definitions() {
    let many = ("univentionUDMPropertyMultivalue", "1");
    let mut old = definition("old", "a10", "string", &[]);
    old.attributes
        .iter_mut()
        .filter(|(name, _)| name.ends_with("Version"))
        .for_each(|(_, v)| *v = b"1".to_vec());
    let definitions = [
        definition("text", "a1", "string", &[]),
        definition("several", "a2", "string", &[many]),
        definition("none", "a3", "string", &[many]),
        definition("flag", "a4", "boolean", &[("univentionUDMPropertyDefault", "1")]),
        definition("number", "a5", "integer", &[]),
        definition("standard", "a6", "string", &[("univentionUDMPropertyDefault", "<username>@x")]),
        definition("day", "a7", "iso8601Date", &[]),
        definition("upper", "A8", "TrueFalseUp", &[]),
        definition("pin", "appPassword", "string", &[]),
        definition("sambaOnly", "a9", "string", &[("univentionUDMPropertyOptions", "samba")]),
        definition("posixOnly", "a9", "string", &[("univentionUDMPropertyOptions", "posix")]),
        definition("taken", "title", "string", &[]),
        definition("mapped", "objectClass", "string", &[]),
        definition("recovery", "univentionPasswordSelfServiceEmail", "emailAddress", &[]),
        old,
        definition("other", "a11", "string", &[("univentionUDMPropertyModule", "groups/group")]),
    ];
    // Of the last two the first value counts.
    let anna = entry(
        "uid=anna,dc=x",
        &[
            ("univentionObjectType", "users/user"),
            ("objectClass", "posixAccount"),
            ("uid", "anna"),
            ("a1", "ä"),
            ("A2", "x"),
            ("a2", "y"),
            ("a5", "7"),
            ("a7", "2026-01-31"),
            ("a8", "FALSE"),
            ("a9", "z"),
            ("appPassword", "geheim"),
            ("title", "Dr."),
            ("univentionPasswordSelfServiceEmail", "r@x"),
            ("a99", "no definition"),
        ],
    );
    let attributes = anna.attributes();
    let now = jiff::Timestamp::from_second(NOW).unwrap();
    let unmapped = unmap("users/user", &attributes, &facts(&definitions), now);
    let properties = unmapped.object["properties"].as_object().unwrap();
    for (property, expected) in [
        ("text", json!("ä")),
        ("several", json!(["x", "y"])),
        ("none", json!([])),
        ("flag", json!(false)),
        ("number", json!(7)),
        ("standard", json!("anna@x")),
        ("day", json!("2026-01-31")),
        ("upper", json!(false)),
        ("pin", Value::Null),
        ("posixOnly", json!("z")),
        ("taken", json!("Dr.")),
        ("title", Value::Null),
        ("mapped", Value::Null),
        ("recovery", json!("r@x")),
    ] {
        assert_eq!(properties.get(property), Some(&expected), "{property}");
    }
    for absent in ["sambaOnly", "old"] {
        assert_eq!(properties.get(absent), None, "{absent}");
    }
    assert!(!unmapped.object.to_string().contains("geheim"));
    assert_eq!(unmapped.left_out, BTreeMap::from([("a99".to_owned(), 1)]));
}

#[test]
fn extended_options_are_shown_and_their_attributes_with_them() {
    let option = entry(
        "cn=app,dc=x",
        &[
            ("objectClass", "univentionUDMOption"),
            ("cn", "app"),
            ("univentionUDMOptionModule", "users/user"),
            ("univentionUDMOptionObjectClass", "appUser"),
        ],
    );
    let facts = facts(&[
        option,
        definition("appName", "appName", "string", &[("univentionUDMPropertyOptions", "app")]),
    ]);
    for (class, enabled) in [("AppUser", true), ("other", false)] {
        let attributes = [("univentionObjectType", "users/user"), ("objectClass", class), ("appName", "a")];
        let object = object(&entry("uid=a,dc=x", &attributes), &facts);
        assert_eq!(object["options"], json!({"pki": false, "app": enabled}));
        assert_eq!(object["properties"].get("appName").is_some(), enabled);
    }
}

#[test]
fn who_is_listed() {
    let account: &[&str] =
        &["person", "posixAccount", "shadowAccount", "sambaSamAccount", "krb5Principal", "krb5KDCEntry"];
    for (object_type, classes, more, expected) in [
        ("users/user", account, ("uid", "a"), Listed::Complete),
        ("users/user", &account[..5], ("uid", "a"), Listed::No),
        ("users/user", &["inetOrgPerson"], ("uid", "a"), Listed::Bare),
        ("users/user", account, ("uidNumber", "0"), Listed::No),
        ("users/user", account, ("uid", "pc$"), Listed::No),
        ("users/user", account, ("univentionObjectFlag", "functional"), Listed::No),
        ("users/user", account, ("univentionObjectFlag", "hidden"), Listed::Complete),
        ("users/user", account, ("objectClass", "univentionHost"), Listed::No),
        ("groups/group", &["univentionGroup"], ("cn", "a"), Listed::Complete),
        ("groups/group", account, ("cn", "a"), Listed::No),
        ("groups/group", &["posixGroup"], ("cn", "a"), Listed::Bare),
        ("container/ou", &[], ("ou", "a"), Listed::Yes),
    ] {
        let mut found = entry("cn=a", &[more]);
        found
            .attributes
            .extend(classes.iter().map(|class| ("objectClass".to_owned(), class.as_bytes().to_vec())));
        assert_eq!(listed(object_type, &found.attributes()), expected, "{object_type} {classes:?} {more:?}");
    }
}

#[test]
fn other_types_keep_the_names_of_ldap_and_no_secret() {
    let mut portal = entry(
        r"cn=a\,b,cn=portal,dc=x",
        &[
            ("univentionObjectType", "portals/entry"),
            ("cn", "a,b"),
            ("cn", "c"),
            ("displayName;lang-de", "Ä"),
            ("userPassword", "secret1"),
            ("acmeClientSecret", "secret2"),
            ("note", "{SSHA}secret3"),
        ],
    );
    portal.attributes.push(("icon".to_owned(), vec![0xff, 0xd8]));
    let attributes = portal.attributes();
    let unmapped = unmap("portals/entry", &attributes, &Facts::default(), jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(
        unmapped.object,
        json!({"dn": r"cn=a\,b,cn=portal,dc=x", "objectType": "portals/entry", "id": "a,b",
               "position": "cn=portal,dc=x", "properties": {"cn": ["a,b", "c"], "displayName;lang-de": ["Ä"]},
               "options": {}, "policies": {}})
    );
    assert_eq!(unmapped.left_out, BTreeMap::from([("note".to_owned(), 1), ("icon".to_owned(), 1)]));
}
