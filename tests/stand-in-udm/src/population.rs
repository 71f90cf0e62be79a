//! Users and groups out of a seed: object `i` is written when it is asked for, so that a million of them need
//! little more memory than their memberships (4 bytes each).
//!
//! Sizes are like in the field: four users in five have about 2 KB, one in six has an address and the attributes of
//! applications, one in fifty has a photo of 20 to 400 KB; most groups are small, a few have 1,000 members, and one
//! has everybody.

use crate::json::Members;
use crate::object::{Head, Object, derived_uuid, rdn_value};

/// How much there is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Population {
    /// Number of users.
    pub users: u32,
    /// Number of groups, besides `Domain Users`.
    pub groups: u32,
    /// The same seed gives the same objects.
    pub seed: u64,
    /// Users with a photo, of a thousand.
    pub photos_per_mille: u32,
    /// Members of `Domain Users`: all users, or this many of them (each is 65 bytes in a group's object).
    pub domain_users: Option<u32>,
    /// LDAP base.
    pub base: String,
}

impl Default for Population {
    fn default() -> Self {
        Self {
            users: 0,
            groups: 0,
            seed: 1,
            photos_per_mille: 20,
            domain_users: None,
            base: "dc=swp-ldap,dc=internal".to_owned(),
        }
    }
}

const FIRST_NAMES: [(&str, &str); 16] = [
    ("Anna", "anna"),
    ("Jürgen", "juergen"),
    ("Zoë", "zoe"),
    ("Søren", "soeren"),
    ("Käthe", "kaethe"),
    ("Mehmet", "mehmet"),
    ("Łukasz", "lukasz"),
    ("Björn", "bjoern"),
    ("Maria", "maria"),
    ("René", "rene"),
    ("Ayşe", "ayse"),
    ("Jana", "jana"),
    ("Peter", "peter"),
    ("Noël", "noel"),
    ("Ida", "ida"),
    ("Günther", "guenther"),
];

const LAST_NAMES: [(&str, &str); 16] = [
    ("Müller", "mueller"),
    ("Weiß", "weiss"),
    ("O'Neill", "oneill"),
    ("Özdemir", "oezdemir"),
    ("Schröder", "schroeder"),
    ("Nowak", "nowak"),
    ("von der Lühe", "vonderluehe"),
    ("Meyer-Lüdenscheidt", "meyer-luedenscheidt"),
    ("Schmidt", "schmidt"),
    ("Köhler", "koehler"),
    ("Groß", "gross"),
    ("Dvořák", "dvorak"),
    ("Ångström", "angstroem"),
    ("Fischer", "fischer"),
    ("Jäger", "jaeger"),
    ("Nguyễn", "nguyen"),
];

/// Where users live, besides `cn=users`: everything that is hard to quote.
pub const CONTAINERS: [&str; 9] = [
    "ou=Vertrieb",
    r"ou=Einkauf\, Süd",
    "ou=Forschung & Lehre",
    "ou=Werk 1/2",
    r"ou=Entwicklung \+ Test",
    r#"ou=\"Haus\" Ost"#,
    "ou=Köln//Nord",
    "ou=100% Ökostrom",
    r"ou=Kunden\; Partner #1?",
];

const GROUP_NAMES: [&str; 8] = [
    "Team Süd",
    "R&D",
    r"Einkauf\, Verkauf",
    "Projekt Ä/Ö",
    "Schule.Klasse",
    r"Werk \+ Lager",
    "mail-verteiler",
    "Ausschuss für Größe",
];

/// Steps through the users that give a group its members; at least one of them has no divisor in common with any
/// number of users below their product.
const STRIDES: [u32; 4] = [7919, 104_729, 15_485_863, 1_299_709];

/// Users and groups that can be written one by one.
#[derive(Debug)]
pub struct Generated {
    population: Population,
    stride: u32,
    /// Groups of user `u` are `of_user[starts[u]..starts[u + 1]]`.
    starts: Vec<u32>,
    of_user: Vec<u32>,
}

/// Mixes two numbers (splitmix64): a random number for each place of each object, in any order of asking.
#[must_use]
pub fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_add(b.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Generated {
    /// Prepares the memberships; the objects are written later.
    #[must_use]
    pub fn new(population: Population) -> Self {
        let users = population.users;
        let stride = STRIDES.into_iter().find(|stride| !users.is_multiple_of(*stride)).unwrap_or(1);
        let mut generated =
            Self { population, stride, starts: vec![0; users as usize + 1], of_user: Vec::new() };
        for group in 0..generated.population.groups {
            for user in generated.members(group) {
                generated.starts[user as usize + 1] += 1;
            }
        }
        for user in 0..users as usize {
            generated.starts[user + 1] += generated.starts[user];
        }
        let mut free = generated.starts.clone();
        let mut of_user = vec![0; free.last().copied().unwrap_or(0) as usize];
        for group in 0..generated.population.groups {
            for user in generated.members(group) {
                of_user[free[user as usize] as usize] = group;
                free[user as usize] += 1;
            }
        }
        generated.of_user = of_user;
        generated
    }

    /// LDAP base.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.population.base
    }

    /// How many objects of a module are generated.
    #[must_use]
    pub fn count(&self, module: &str) -> u32 {
        match module {
            "users/user" => self.population.users,
            "groups/group" if self.population.users > 0 => self.population.groups + 1,
            "groups/group" => self.population.groups,
            _ => 0,
        }
    }

    /// Which generated object has this DN, if one has.
    #[must_use]
    pub fn index_of(&self, module: &str, dn: &str) -> Option<u32> {
        let name = rdn_value(dn);
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let index = match module {
            "groups/group" if name.eq_ignore_ascii_case("Domain Users") => self.population.groups,
            _ => name[name.len() - digits..].parse().ok()?,
        };
        let exists = index < self.count(module);
        (exists && self.head(module, index).dn.to_lowercase() == dn.to_lowercase()).then_some(index)
    }

    /// What a list shows of object `index` of a module.
    #[must_use]
    pub fn head(&self, module: &str, index: u32) -> Head {
        let (dn, id) = match module {
            "users/user" => (self.user_dn(index), self.username(index)),
            _ => (self.group_dn(index), unescaped(&self.group_name(index))),
        };
        Head {
            object_type: module.to_owned(),
            id,
            position: crate::object::parent(&dn).to_owned(),
            uuid: derived_uuid(&dn),
            superordinate: None,
            hidden: false,
            dn,
        }
    }

    /// The whole object `index` of a module.
    #[must_use]
    pub fn object(&self, module: &str, index: u32) -> Object {
        let head = self.head(module, index);
        match module {
            "users/user" => self.user(head, index),
            _ => self.group(head, index),
        }
    }

    fn random(&self, kind: &str, index: u32, place: u64) -> u64 {
        mix(self.population.seed ^ ((kind.len() as u64) << 56), mix(u64::from(index), place))
    }

    fn username(&self, user: u32) -> String {
        let (first, last) = self.names(user);
        format!("{}.{}{user}", first.1, last.1)
    }

    fn names(&self, user: u32) -> ((&str, &str), (&str, &str)) {
        let random = self.random("user", user, 0);
        (FIRST_NAMES[(random & 15) as usize], LAST_NAMES[(random >> 8 & 15) as usize])
    }

    fn user_dn(&self, user: u32) -> String {
        let place = (self.random("user", user, 1) % 30) as usize;
        let container = CONTAINERS.get(place).copied().unwrap_or("cn=users");
        format!("uid={},{container},{}", self.username(user), self.population.base)
    }

    /// As it stands in a DN, i.e. escaped.
    fn group_name(&self, group: u32) -> String {
        if group == self.population.groups {
            return "Domain Users".to_owned();
        }
        format!("{} {group}", GROUP_NAMES[(self.random("group", group, 0) & 7) as usize])
    }

    fn group_dn(&self, group: u32) -> String {
        format!("cn={},cn=groups,{}", self.group_name(group), self.population.base)
    }

    fn group_size(&self, group: u32) -> u32 {
        let random = self.random("group", group, 1);
        let size = match random % 100 {
            0..70 => 1 + (random >> 8) % 10,
            70..95 => 10 + (random >> 8) % 91,
            _ => 1000,
        };
        u32::try_from(size).unwrap_or(u32::MAX).min(self.population.users)
    }

    /// Users of a group, each once.
    fn members(&self, group: u32) -> impl Iterator<Item = u32> + use<> {
        let users = u64::from(self.population.users.max(1));
        let all = group == self.population.groups;
        let size = match all {
            true => self.population.domain_users.unwrap_or(u32::MAX).min(self.population.users),
            false => self.group_size(group),
        };
        let start = if all { 0 } else { self.random("group", group, 2) % users };
        let stride = if all { 1 } else { u64::from(self.stride) };
        (0..u64::from(size)).map(move |i| ((start + i * stride) % users) as u32)
    }

    fn groups_of(&self, user: u32) -> impl Iterator<Item = u32> {
        let range = self.starts[user as usize] as usize..self.starts[user as usize + 1] as usize;
        let everybody = user < self.population.domain_users.unwrap_or(u32::MAX);
        everybody.then_some(self.population.groups).into_iter().chain(self.of_user[range].iter().copied())
    }

    fn user(&self, head: Head, user: u32) -> Object {
        let random = self.random("user", user, 2);
        let rich = random % 100 < 20;
        let ((first, _), (last, _)) = self.names(user);
        let username = &head.id;
        let groups: Vec<String> = self.groups_of(user).map(|g| self.group_dn(g)).collect();
        let primary = self.group_dn(self.population.groups);
        let mail = format!("{username}@example.org");

        let mut properties = Members::default();
        properties.constant(r#""accountActivationDate": {"activation-date": null, "activation-time": null, "activation-timezone": "Etc/UTC"}"#);
        if rich {
            properties.string(
                "birthday",
                &format!("19{:02}-{:02}-{:02}", 50 + random % 50, 1 + random % 12, 1 + random % 28),
            );
            properties.string("city", ["Köln", "Berlin", "Bremen", "Würzburg"][(random >> 9 & 3) as usize]);
            properties
                .constant(r#""country": "DE""#)
                .strings("departmentNumber", [format!("{}", random >> 10 & 1023)]);
            properties.string(
                "description",
                &"Zuständig für alles Mögliche. ".repeat(1 + (random >> 20 & 15) as usize),
            );
        } else {
            properties.constant(r#""birthday": null, "city": null, "country": null, "departmentNumber": [], "description": null"#);
        }
        properties.constant(r#""disabled": false"#).string("displayName", &format!("{first} {last}"));
        properties.strings("e-mail", [&mail]).string("employeeNumber", &user.to_string());
        properties.constant(r#""employeeType": null"#).string("firstname", first);
        properties.string("gecos", username).constant(r#""gidNumber": 5001"#).strings("groups", &groups);
        properties.constant(r#""guardianInheritedRoles": [], "guardianRoles": []"#);
        match rich {
            true => {
                properties.raw("homePostalAddress", r#"[["Am Stra\u00dfenrand 7", "50667", "K\u00f6ln"]]"#)
            }
            false => properties.constant(r#""homePostalAddress": []"#),
        };
        properties.constant(r#""homeShare": null"#).string("homeSharePath", username);
        properties.constant(r#""homeTelephoneNumber": [], "homedrive": null, "initials": null"#);
        match self.photo(user) {
            Some(photo) => properties.raw("jpegPhoto", &photo),
            None => properties.constant(r#""jpegPhoto": null"#),
        };
        properties.string("lastname", last).constant(r#""locked": false, "lockedTime": "0""#);
        properties.strings("mailAlternativeAddress", rich.then(|| format!("{user}@mail.example.org")));
        properties
            .constant(r#""mailForwardAddress": [], "mailForwardCopyToSelf": "0", "mailHomeServer": null"#);
        properties.string("mailPrimaryAddress", &mail);
        properties.constant(r#""mobileTelephoneNumber": [], "objectFlag": [], "organisation": null, "overridePWHistory": null, "overridePWLength": null, "pagerTelephoneNumber": [], "password": null, "passwordexpiry": null, "phone": [], "physicalDeliveryOfficeName": null, "postOfficeBox": [], "postcode": null, "preferredDeliveryMethod": null, "preferredLanguage": null"#);
        properties.string("primaryGroup", &primary);
        properties.constant(r#""profilepath": null, "pwdChangeNextLogin": false, "roomNumber": [], "sambaLogonHours": null, "sambaPrivileges": []"#);
        properties.number("sambaRID", 5006 + 2 * u64::from(user));
        properties.constant(r#""sambaUserWorkstations": [], "sambahome": null, "scriptpath": null, "secretary": [], "shell": "/bin/bash", "state": null, "street": null, "title": null"#);
        properties.number("uidNumber", 2003 + u64::from(user)).constant(r#""umcProperty": {}"#);
        properties.string("univentionObjectIdentifier", &head.uuid);
        properties
            .constant(r#""univentionSourceIAM": null"#)
            .string("unixhome", &format!("/home/{username}"));
        properties
            .constant(r#""unlock": false, "unlockTime": "", "userexpiry": null"#)
            .string("username", username);
        if rich {
            properties.constant(r#""PasswordRecoveryEmail": null, "PasswordRecoveryMobile": null, "PasswordRecoveryEmailVerified": false, "isOxUser": true, "oxContext": "10", "oxAccess": "premium", "oxDisplayName": null, "oxLanguage": "de_DE", "oxTimeZone": "Europe/Berlin", "opendeskFileshareEnabled": true, "opendeskFileshareAdmin": false, "opendeskProjectmanagementEnabled": true, "opendeskProjectmanagementAdmin": false, "opendeskKnowledgemanagementEnabled": true, "opendeskLivecollaborationEnabled": true, "opendeskLivecollaborationAdmin": false"#);
        }
        let mut members = head_members(&head);
        members.constant(r#""options": {"pki": false}, "policies": {"policies/desktop": [], "policies/pwhistory": [], "policies/umc": []}"#);
        members.raw("properties", &properties.into_object());
        let mut references: Vec<_> = groups.into_iter().map(|dn| ("groups".to_owned(), dn)).collect();
        references.push(("primaryGroup".to_owned(), primary));
        Object { head, members: members.into_text(), references }
    }

    /// A JSON string of base64, for the few users that have a photo.
    fn photo(&self, user: u32) -> Option<String> {
        let random = self.random("user", user, 3);
        if random % 1000 >= u64::from(self.population.photos_per_mille) {
            return None;
        }
        // Evenly spread over the orders of magnitude: 20, 40, 80 … 400 KB of file, a third more as base64.
        let size = (20_000.0 * 20_f64.powf((random >> 10 & 1023) as f64 / 1023.0)) as usize;
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::with_capacity(size * 4 / 3 + 16);
        text.push('"');
        for block in 0..size.div_ceil(6) as u64 {
            let random = mix(random, block);
            text.extend((0..8).map(|i| char::from(DIGITS[(random >> (6 * i) & 63) as usize])));
        }
        text.push('"');
        Some(text)
    }

    fn group(&self, head: Head, group: u32) -> Object {
        let users: Vec<String> = self.members(group).map(|u| self.user_dn(u)).collect();
        let mut properties = Members::default();
        properties.string("name", &head.id).number("gidNumber", 5001 + u64::from(group));
        properties.number("sambaRID", 11_001 + 2 * u64::from(group));
        properties.constant(r#""sambaGroupType": "2", "sambaPrivileges": [], "adGroupType": "-2147483646""#);
        properties.string("description", "Eine Gruppe für Prüfungen").strings("users", &users);
        properties.constant(r#""hosts": [], "mailAddress": null, "memberOf": [], "nestedGroup": [], "allowedEmailUsers": [], "allowedEmailGroups": [], "univentionObjectIdentifier": null, "univentionSourceIAM": null, "guardianMemberRoles": [], "objectFlag": []"#);
        let mut members = head_members(&head);
        members.constant(r#""options": {"posix": true, "samba": true}, "policies": {"policies/umc": []}"#);
        members.raw("properties", &properties.into_object());
        let references = users.into_iter().map(|dn| ("users".to_owned(), dn)).collect();
        Object { head, members: members.into_text(), references }
    }
}

fn head_members(head: &Head) -> Members {
    let mut members = Members::default();
    members.string("dn", &head.dn).string("objectType", &head.object_type).string("id", &head.id);
    members.string("position", &head.position).string("uuid", &head.uuid);
    members
}

/// The value of an RDN without its escapes.
fn unescaped(value: &str) -> String {
    value.replace(r"\", "")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn generated(users: u32, groups: u32) -> Generated {
        Generated::new(Population { users, groups, ..Population::default() })
    }

    #[test]
    fn the_same_seed_gives_the_same_objects() {
        let [a, b] = [1, 1]
            .map(|seed| Generated::new(Population { users: 50, groups: 9, seed, ..Population::default() }));
        let other = Generated::new(Population { users: 50, groups: 9, seed: 2, ..Population::default() });
        for user in 0..50 {
            assert_eq!(a.object("users/user", user), b.object("users/user", user));
        }
        assert!((0..50).any(|u| a.head("users/user", u) != other.head("users/user", u)));
    }

    #[test]
    fn each_object_is_found_by_its_dn() {
        let generated = generated(300, 40);
        for module in ["users/user", "groups/group"] {
            let dns: BTreeSet<_> =
                (0..generated.count(module)).map(|i| generated.head(module, i).dn).collect();
            assert_eq!(dns.len(), generated.count(module) as usize);
            for index in 0..generated.count(module) {
                assert_eq!(generated.index_of(module, &generated.head(module, index).dn), Some(index));
            }
        }
        for absent in
            ["uid=nobody", "uid=anna.mueller999999,cn=users,dc=x", "cn=Domain Users,dc=x", "", "uid="]
        {
            assert_eq!(generated.index_of("users/user", absent), None);
            assert_eq!(generated.index_of("groups/group", absent), None);
        }
    }

    #[test]
    fn users_and_groups_agree_about_memberships() {
        for users in [1, 10, 300, 7919] {
            let generated = generated(users, 30);
            let mut by_group = BTreeMap::<u32, BTreeSet<u32>>::new();
            for user in 0..users {
                for group in generated.groups_of(user) {
                    assert!(by_group.entry(group).or_default().insert(user), "twice in a group");
                }
            }
            for group in 0..=30 {
                assert_eq!(generated.members(group).collect::<BTreeSet<_>>(), by_group[&group]);
            }
        }
    }

    #[test]
    fn objects_are_json_and_of_the_sizes_of_the_field() {
        let generated = generated(2000, 200);
        let mut sizes: Vec<usize> =
            (0..2000).map(|u| generated.object("users/user", u).members.len()).collect();
        let read = |object: Object| Object::from_json(&format!("{{{}}}", object.members)).unwrap();
        for index in 0..200 {
            let (user, group) =
                (generated.object("users/user", index), generated.object("groups/group", index));
            assert_eq!(read(user.clone()).head, user.head);
            assert_eq!(read(group.clone()).head, group.head);
            assert_eq!(read(group.clone()).references, group.references);
        }
        sizes.sort_unstable();
        assert!((1800..4000).contains(&sizes[1000]), "median {}", sizes[1000]);
        assert!(sizes[1900] < 7000, "95 of 100: {}", sizes[1900]);
        assert!((200_000..600_000).contains(&sizes[1999]), "biggest {}", sizes[1999]);
        let photos = sizes.iter().filter(|size| **size > 20_000).count();
        assert!((15..80).contains(&photos), "{photos} photos");
    }
}
