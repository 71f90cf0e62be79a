//! A made-up directory, in the shape of the UDM REST API's objects: many small users, some with more attributes and
//! a few with a photo, groups of very different sizes, umlauts, dots, spaces and ampersands in names.

use std::fmt::Write as _;

use serde_json::{Value, json};

const BASE: &str = "dc=example,dc=test";
const FIRST: [&str; 12] =
    ["Anna", "Jürgen", "Zoë", "Mehmet", "Søren", "Łucja", "Björn", "Chloé", "Olga", "Max", "Noor", "Ida"];
const LAST: [&str; 10] =
    ["Müller", "Großmann", "van den Berg", "Yılmaz", "Øster", "Schäfer", "O'Neill", "Nowak", "Weiß", "Li"];

/// How big it is.
pub struct Directory {
    pub users: u64,
    pub groups: u64,
}

impl Directory {
    /// The whole directory, one object a line.
    pub fn dump(&self) -> String {
        let groups = (0..self.groups).map(|number| self.group(number));
        let users = (0..self.users).map(|number| self.user(number));
        groups.chain(users).fold(String::new(), |mut dump, object| {
            writeln!(dump, "{object}").ok();
            dump
        })
    }

    fn user(&self, number: u64) -> Value {
        let (name, first, last) = (user_name(number), pick(&FIRST, number), pick(&LAST, number / 12));
        let groups: Vec<_> =
            (0..self.groups).filter(|group| is_member(number, *group)).map(group_dn).collect();
        // One in fifty has a photo, of base64 text that repeats.
        let photo = number.is_multiple_of(50).then(|| "iVBORw0KGgoAAAANSUhEUgAA".repeat(2_000));
        json!({
            "dn": user_dn(number), "id": name, "objectType": "users/user", "position": format!("cn=users,{BASE}"),
            "uuid": uuid(1, number), "options": {"pki": false},
            "policies": {"policies/pwhistory": [], "policies/umc": []},
            "properties": {
                "username": name, "firstname": first, "lastname": last, "displayName": format!("{first} {last}"),
                "mailPrimaryAddress": format!("{name}@example.test"), "mailAlternativeAddress": [], "e-mail": [],
                "description": null, "disabled": false, "locked": false, "lockedTime": "0", "password": null,
                "gidNumber": 5001, "uidNumber": 20_000 + number, "unixhome": format!("/home/{name}"),
                "shell": "/bin/bash", "city": "Bremen", "country": null, "departmentNumber": [],
                "employeeNumber": format!("{number:06}"), "homePostalAddress": [], "phone": [], "roomNumber": [],
                "mailForwardCopyToSelf": "0", "pwdChangeNextLogin": false, "umcProperty": {}, "jpegPhoto": photo,
                "opendeskFileshareEnabled": number.is_multiple_of(3), "primaryGroup": group_dn(0), "groups": groups,
                "univentionObjectIdentifier": uuid(1, number),
            },
        })
    }

    fn group(&self, number: u64) -> Value {
        let users: Vec<_> = (0..self.users).filter(|user| is_member(*user, number)).map(user_dn).collect();
        json!({
            "dn": group_dn(number), "id": group_name(number), "objectType": "groups/group",
            "position": format!("cn=groups,{BASE}"), "uuid": uuid(2, number),
            "options": {"posix": true, "samba": true}, "policies": {"policies/umc": []},
            "properties": {
                "name": group_name(number), "gidNumber": 5_001 + number, "description": null, "users": users,
                "hosts": [], "mailAddress": null, "memberOf": [], "nestedGroup": [],
                "univentionObjectIdentifier": uuid(2, number),
            },
        })
    }
}

/// A change: a user that is new, as the directory's listener tells it.
pub fn change(number: u64) -> Value {
    let name = format!("new.user{number}");
    json!({
        "publisher_name": "udm-listener", "ts": jiff::Timestamp::now().to_string(), "realm": "udm",
        "topic": "users/user",
        "body": {"old": {}, "new": {
            "dn": format!("uid={name},cn=users,{BASE}"), "id": name, "objectType": "users/user",
            "position": format!("cn=users,{BASE}"), "options": {}, "policies": {},
            "properties": {"username": name, "description": format!("change {number}")},
        }},
    })
}

/// Group 0 holds everybody, every tenth group many, the others a few.
fn is_member(user: u64, group: u64) -> bool {
    group == 0 || user.is_multiple_of(if group.is_multiple_of(10) { 7 } else { 40 + 3 * group })
}

fn user_name(number: u64) -> String {
    format!("{}.{number}", ["anna", "juergen", "zoe", "mehmet"].get((number % 4) as usize).unwrap_or(&"max"))
}

fn user_dn(number: u64) -> String {
    format!("uid={},cn=users,{BASE}", user_name(number))
}

fn group_name(number: u64) -> String {
    if number == 0 { "Domain Users".to_owned() } else { format!("Rat & Tat {number}") }
}

fn group_dn(number: u64) -> String {
    format!("cn={},cn=groups,{BASE}", group_name(number))
}

fn uuid(kind: u64, number: u64) -> String {
    format!("00000000-0000-4000-8000-{kind:04x}{number:08x}")
}

fn pick<'a>(of: &[&'a str], number: u64) -> &'a str {
    usize::try_from(number).ok().and_then(|number| of.get(number % of.len())).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_object_is_a_line_with_a_name_of_its_own() {
        let dump = Directory { users: 200, groups: 12 }.dump();
        let objects: Vec<Value> = dump.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects.len(), 212);
        let names: BTreeSet<_> = objects.iter().map(|object| object["dn"].as_str().unwrap()).collect();
        assert_eq!(names.len(), 212);
        assert_eq!(objects[0]["properties"]["users"].as_array().unwrap().len(), 200);
    }
}
