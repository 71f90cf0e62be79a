//! `users/user`.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::{entry::Attributes, facts::Facts};
use super::{Property, certificate, extended, extended::filled, mapped, syntax::As, time};

pub(super) const TYPE: &str = "users/user";

/// The classes of an account; UDM lists a person that has all of them.
pub(super) const ACCOUNT_CLASSES: [&str; 5] =
    ["posixAccount", "shadowAccount", "sambaSamAccount", "krb5Principal", "krb5KDCEntry"];
/// All classes that UDM asks for.
pub(super) const CLASSES: [&str; 6] =
    ["posixAccount", "shadowAccount", "sambaSamAccount", "krb5Principal", "krb5KDCEntry", "person"];

/// Options of former versions, which extended attributes still name.
const FORMER_OPTIONS: [(&str, &str); 5] = [
    ("posix", "posixAccount"),
    ("samba", "sambaSamAccount"),
    ("kerberos", "krb5Principal"),
    ("mail", "univentionMail"),
    ("person", "person"),
];

/// What UDM's module maps.
pub(super) const PROPERTIES: &[Property] = &[
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
    ("univentionBirthday", "birthday", As::Date),
    ("jpegPhoto", "jpegPhoto", As::Base64),
    ("mail", "e-mail", As::Texts),
    ("mailPrimaryAddress", "mailPrimaryAddress", As::Lower),
    ("mailAlternativeAddress", "mailAlternativeAddress", As::Texts),
    ("mailForwardAddress", "mailForwardAddress", As::Texts),
    ("mailForwardCopyToSelf", "mailForwardCopyToSelf", As::Text),
    ("univentionMailHomeServer", "mailHomeServer", As::Text),
    ("telephoneNumber", "phone", As::Texts),
    ("homePhone", "homeTelephoneNumber", As::Texts),
    ("mobile", "mobileTelephoneNumber", As::Texts),
    ("pager", "pagerTelephoneNumber", As::Texts),
    ("homePostalAddress", "homePostalAddress", As::Addresses),
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
    ("sambaLogonHours", "sambaLogonHours", As::Hours),
    ("sambaBadPasswordTime", "lockedTime", As::FileTime),
    ("univentionSambaPrivilegeList", "sambaPrivileges", As::Texts),
    ("univentionUMCProperty", "umcProperty", As::Pairs),
    ("memberOf", "groups", As::Texts),
    ("univentionGuardianRoles", "guardianRoles", As::Texts),
    ("univentionObjectIdentifier", "univentionObjectIdentifier", As::Text),
    ("univentionSourceIAM", "univentionSourceIAM", As::Text),
    ("univentionObjectFlag", "objectFlag", As::Texts),
];

/// Attributes that make part of a state, or that no version of UDM shows.
const USED: [&str; 22] = [
    "cn",
    "krb5kdcflags",
    "krb5maxlife",
    "krb5maxrenew",
    "krb5passwordend",
    "krb5principalname",
    "krb5validend",
    "krb5validstart",
    "pwdaccountlockedtime",
    "sambaacctflags",
    "sambabadpasswordcount",
    "sambakickofftime",
    "sambaprimarygroupsid",
    "sambapwdlastset",
    "shadowexpire",
    "shadowlastchange",
    "shadowmax",
    "shadowmin",
    "shadowwarning",
    "automountinformation",
    "usercertificate",
    "usercertificate;binary",
];

/// What UDM leaves out of its lists although it has all classes: root, computers, and what is for itself.
pub(super) fn is_hidden(entry: &Attributes<'_>) -> bool {
    entry.all("uidnumber").contains(&&b"0"[..])
        || entry.first("uid").is_some_and(|uid| uid.contains(&b'$'))
        || entry.all("univentionobjectflag").contains(&&b"functional"[..])
        || entry.is_a("univentionHost")
}

pub(super) fn properties(
    entry: &Attributes<'_>,
    facts: &Facts,
    now: Timestamp,
    options: &mut Map<String, Value>,
    policies: &mut Map<String, Value>,
) -> (Map<String, Value>, BTreeMap<String, u64>) {
    for policy in ["policies/pwhistory", "policies/umc", "policies/desktop"] {
        policies.insert(policy.to_owned(), json!([]));
    }
    let mut enabled: HashSet<String> =
        extended::options(entry, &[("pki", &["pkiUser"])], facts.options(TYPE), options);
    let former = FORMER_OPTIONS.iter().filter(|(_, class)| entry.is_a(class));
    enabled.extend(former.map(|(name, _)| (*name).to_owned()));
    let (mut properties, left_out) = mapped(entry, PROPERTIES, &USED, facts.definitions(TYPE), &enabled);
    let mut states = Map::new();
    let mut set = |name: &str, value: Value| _ = states.insert(name.to_owned(), value);
    for name in ["password", "overridePWHistory", "overridePWLength", "homeShare"] {
        set(name, Value::Null);
    }
    set("unlock", false.into());
    set("guardianInheritedRoles", json!([]));
    set("disabled", disabled(entry, now).into());
    set("locked", (has_flag(entry, b'L') || kerberos_flag(entry, 17)).into());
    let expiry = password_expiry(entry);
    let today = now.strftime("%Y-%m-%d").to_string();
    let must_change = entry.text("shadowlastchange") == Some("0")
        || expiry.as_ref().is_some_and(|date| today.as_str() >= date.as_str());
    set("pwdChangeNextLogin", must_change.into());
    set("passwordexpiry", expiry.into());
    set("userexpiry", expires(entry).into());
    set("accountActivationDate", activation(entry));
    set("unlockTime", unlock_time(entry, facts).into());
    set("primaryGroup", entry.text("gidnumber").and_then(|gid| facts.group_of(gid)).into());
    set("homeSharePath", filled("<username>", &properties).into());
    if entry.is_a("pkiUser") {
        let stored = [entry.all("usercertificate;binary"), entry.all("usercertificate")].concat();
        certificate::add(&stored, &mut states);
    }
    // An extended attribute may have taken a name for itself.
    let taken: Vec<&str> = facts.definitions(TYPE).iter().map(extended::Definition::name).collect();
    states.retain(|name, _| !taken.contains(&name.as_str()));
    properties.extend(states);
    defaults(&mut properties);
    forwarding(entry, &mut properties);
    (properties, left_out)
}

/// What UDM shows of an existing object where nothing is set.
fn defaults(properties: &mut Map<String, Value>) {
    let name = filled("<firstname> <lastname>", properties);
    let home = filled("/home/<username>", properties);
    for (property, default) in [
        ("displayName", name.trim().to_owned()),
        ("gecos", ascii(name.trim())),
        ("unixhome", home),
        ("shell", "/bin/bash".to_owned()),
    ] {
        if let Some(value @ Value::Null) = properties.get_mut(property) {
            *value = default.into();
        }
    }
}

/// Where the attribute is not used, the choice is made by the own address among those that mail is forwarded to.
fn forwarding(entry: &Attributes<'_>, properties: &mut Map<String, Value>) {
    if entry.first("mailforwardcopytoself").is_some() {
        return;
    }
    let own = properties.get("mailPrimaryAddress").cloned().unwrap_or_default();
    let mut keeps = false;
    if let Some(Value::Array(addresses)) = properties.get_mut("mailForwardAddress")
        && let Some(at) = addresses.iter().position(|address| *address == own)
    {
        addresses.remove(at);
        keeps = true;
    }
    properties.insert("mailForwardCopyToSelf".to_owned(), if keeps { "1" } else { "0" }.into());
}

/// Umlauts as German writes them in ASCII, other letters without their accents, all else left out.
fn ascii(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for c in text.chars() {
        let replaced = match c {
            'ä' => "ae",
            'ö' | 'œ' => "oe",
            'ü' => "ue",
            'Ä' => "Ae",
            'Ö' => "Oe",
            'Ü' => "Ue",
            'ß' => "ss",
            'æ' => "ae",
            'Æ' => "AE",
            'Ø' => "O",
            'ø' | 'ð' => "o",
            'Ð' => "D",
            'Ł' => "L",
            'ł' => "l",
            'Þ' => "P",
            'þ' => "p",
            c if c.is_ascii() => {
                ascii.push(c);
                continue;
            }
            c => {
                ascii.push_str(&model::string_prep::without_accents(c));
                continue;
            }
        };
        ascii.push_str(replaced);
    }
    ascii
}

/// Disabled is who can't log in in any of the ways: Samba, Kerberos, and POSIX or the password itself.
fn disabled(entry: &Attributes<'_>, now: Timestamp) -> bool {
    let today = now.as_second().div_euclid(86_400);
    let expired = entry.number("shadowexpire").is_some_and(|day| day == 1 || day < today);
    has_flag(entry, b'D') && kerberos_flag(entry, 7) && (expired || is_password_locked(entry))
}

fn has_flag(entry: &Attributes<'_>, flag: u8) -> bool {
    entry.first("sambaacctflags").is_some_and(|flags| flags.contains(&flag))
}

fn kerberos_flag(entry: &Attributes<'_>, bit: u32) -> bool {
    entry.number("krb5kdcflags").is_some_and(|flags| flags & 1 << bit != 0)
}

/// `{crypt}!…`
fn is_password_locked(entry: &Attributes<'_>) -> bool {
    let password = entry.text("userpassword").unwrap_or_default();
    let scheme = password.strip_prefix('{').and_then(|rest| rest.split_once('}'));
    scheme.is_some_and(|(_, rest)| rest.starts_with('!'))
}

/// The first day on which the password has to be changed.
fn password_expiry(entry: &Attributes<'_>) -> Option<String> {
    let max = entry.number("shadowmax")?;
    let changed = entry.first("shadowlastchange").map(|_| entry.number("shadowlastchange").unwrap_or(0))?;
    time::of_days(changed.checked_add(max)?.checked_add(1)?)
}

/// The account's end: of Kerberos, else of Samba, else of POSIX, where `1` only disables it.
fn expires(entry: &Attributes<'_>) -> Option<String> {
    let kerberos = entry.text("krb5validend").and_then(time::date_of);
    let samba =
        || entry.number("sambakickofftime").and_then(|end| time::of_seconds(end.checked_add(86_400)?));
    let posix = || entry.number("shadowexpire").filter(|day| *day != 1).and_then(time::of_days);
    kerberos.or_else(samba).or_else(posix)
}

fn activation(entry: &Attributes<'_>) -> Value {
    let begin = entry.text("krb5validstart").and_then(time::date_and_time);
    // UDM in a container has this zone, and shows what is set in UTC.
    let zone = if begin.is_some() { "UTC" } else { "Etc/UTC" };
    let (date, time) = begin.unzip();
    json!({"activation-date": date, "activation-time": time, "activation-timezone": zone})
}

fn unlock_time(entry: &Attributes<'_>, facts: &Facts) -> String {
    let shown = As::FileTime.shown(entry.all("sambabadpasswordtime"));
    let Some(locked) = shown.as_str().filter(|locked| !locked.is_empty() && *locked != "0") else {
        return String::new();
    };
    match facts.lockout() {
        None => String::new(),
        Some(0) => "unlimited".to_owned(),
        Some(seconds) => time::unlocked(locked, seconds).unwrap_or_default(),
    }
}
