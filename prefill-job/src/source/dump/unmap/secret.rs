//! What nobody reads through UDM, and what is no property.

/// Attributes that the server or UDM keeps for itself, or that the object shows elsewhere than in its properties, in
/// small letters.
const NO_PROPERTIES: [&str; 17] = [
    "objectclass",
    "structuralobjectclass",
    "univentionobjecttype",
    "univentionpolicyreference",
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
    "pwdchangedtime",
];

/// Secrets whose names do not say so.
const SECRETS: [&str; 3] = ["pwhistory", "userpkcs12", "sambapwdhistory"];
/// What a name says that holds one, wherever in the name. A list of all secrets can't be complete: extensions bring
/// their own.
const SAYING: [&str; 8] = ["password", "passwd", "secret", "key", "pkcs12", "credential", "token", "privat"];

/// Is the attribute left out without a word? `name` is in small letters.
pub(super) fn is_hidden(name: &str) -> bool {
    NO_PROPERTIES.contains(&name) || is_secret(name)
}

/// Is it the name of a secret?
pub(super) fn is_secret(name: &str) -> bool {
    let base = name.split(';').next().unwrap_or_default();
    SECRETS.contains(&base)
        || SAYING.iter().any(|saying| base.contains(saying)) && !base.ends_with("publickey")
}

/// Is it the name of a secret although an extended attribute shows it? UDM shows what is defined, so the name itself
/// must be that of a secret: the e-mail address for password recovery is none.
pub(super) fn is_shown_secret(name: &str) -> bool {
    let endings = ["password", "passwd", "secret", "key", "pkcs12", "token", "history", "hash"];
    is_secret(name) && endings.iter().any(|ending| name.ends_with(ending)) || SECRETS.contains(&name)
}

/// Does a value look like a stored password (`{SSHA}…`)?
pub(super) fn is_hash(value: &str) -> bool {
    let scheme = value.strip_prefix('{').and_then(|rest| rest.split_once('}'));
    scheme.is_some_and(|(scheme, rest)| {
        let plain =
            scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        let known = [
            "crypt", "sha", "ssha", "md5", "smd5", "k5key", "kinit", "nt", "lanman", "bcrypt", "argon2",
            "pbkdf2",
        ];
        let scheme = scheme.to_ascii_lowercase();
        plain && !rest.is_empty() && known.iter().any(|name| scheme.starts_with(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names_also_those_of_extensions() {
        for (name, hidden, shown) in [
            ("userpassword", true, true),
            ("krb5key", true, true),
            ("krb5keyversionnumber", true, false),
            ("sambantpassword", true, true),
            ("sambapasswordhistory", true, true),
            ("pwhistory", true, true),
            ("userpkcs12", true, true),
            ("userpkcs12;binary", true, false),
            ("oxapptoken", true, true),
            ("acmeclientsecret", true, true),
            ("sshprivatekey", true, true),
            ("sshpublickey", false, false),
            ("univentionpasswordselfserviceemail", true, false),
            ("entrycsn", true, false),
            ("mail", false, false),
            ("description", false, false),
        ] {
            assert_eq!(is_hidden(name), hidden, "{name}");
            assert_eq!(is_shown_secret(name), shown, "{name}");
        }
        for (value, hash) in [
            ("{SSHA}abc", true),
            ("{crypt}$6$x", true),
            ("{K5KEY}", false),
            ("{BCRYPT}$2b$", true),
            ("{name} is a template", false),
            ("x {SSHA}abc", false),
        ] {
            assert_eq!(is_hash(value), hash, "{value}");
        }
    }
}
