//! The fuzz targets without a fuzzer: some seconds of text that looks like what they read, on any toolchain. For
//! longer, see `fuzz/README.md`.

#[path = "../../fuzz/targets.rs"]
mod targets;

use proptest::prelude::*;

/// Pieces of which texts are put together, so that they come past the first check.
fn pieced(pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => prop::sample::select(pieces).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => "\\PC{0,6}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..3),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

const FILTER: &[&str] = &[
    "(",
    ")",
    "(&",
    "(|",
    "(!",
    "a",
    "b",
    "phone",
    "g",
    "=",
    ">=",
    "~=",
    "*",
    "\\2a",
    " ",
    "anna",
    "uid=b,dc=x",
    "7",
    ":=",
];
const DN: &[&str] = &[
    "uid", "cn", "2.5.4.3", "=", ",", "+", "\\", "\\2C", "\\,", "#0c0141", "\"", ";", " ", "ü", "u\u{308}",
    "dc=x",
];
const TIME: &[&str] =
    &["2026", "-01", "-31", "T", " ", "12:00", ":59", ".5", "Z", "+01:00", "1e3", "0", "\"", "1769860800"];
const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"a\"",
    "\"\\u0061\"",
    "\"\\ud83d\"",
    "1",
    "1e400",
    "null",
    "true",
    " ",
    "{\"a\":1}",
];
const LDIF: &[&str] = &[
    "dn: uid=a,dc=x\n",
    "dn: cn=g,dc=x\n",
    "\n",
    "# c\n",
    " ",
    "version: 1\n",
    "ref: ldap://x\n",
    "sn: a\n",
    "sn:: w7w=\n",
    "univentionObjectType: users/user\n",
    "univentionObjectType: groups/group\n",
    "univentionObjectType: a/b\n",
    "objectClass: univentionUDMProperty\n",
    "univentionUDMPropertyVersion: 2\n",
    "univentionUDMPropertyCLIName: sn\n",
    "univentionUDMPropertyModule: users/user\n",
    "univentionUDMPropertyLdapMapping: sn\n",
    "uniqueMember: cn=g,dc=x\n",
    "shadowExpire: 99999999999\n",
    "shadowMax: 7\nshadowLastChange: x\n",
    "sambaLogonHours: 01zz\n",
    "sambaBadPasswordTime: 1\n",
    "objectClass: pkiUser\nuserCertificate;binary:: MIIB\n",
    "krb5ValidEnd: 20\n",
    "homePostalAddress: a$b\n",
    "univentionUMCProperty: x\n",
    "objectClass: posixGroup\n",
    "\r\n",
];
const LIST: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"results\":",
    "\"results\":1,",
    "\"_embedded\":{\"udm:object\":[",
    "]}}",
    "1",
    "\"dn\":\"uid=a\"",
    "\"objectType\":\"users/user\"",
    "{\"dn\":\"uid=a,dc=x\",\"objectType\":\"users/user\",\"uuid\":\"x\"}",
    "null",
];

proptest! {
    #[test]
    fn filter(data in pieced(FILTER)) { targets::filter(&data); }

    #[test]
    fn dn(data in pieced(DN)) { targets::dn(&data); }

    #[test]
    fn timestamp(data in pieced(TIME)) { targets::timestamp(&data); }

    #[test]
    fn members(data in pieced(JSON)) { targets::members(&data); }

    #[test]
    fn ldif(data in pieced(LDIF)) { targets::ldif(&data); }

    #[test]
    fn udm_list(data in pieced(LIST)) { targets::udm_list(&data); }
}

type Target = fn(&[u8]);

/// Each file of the corpus, and each of its beginnings.
#[test]
fn the_corpus() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let targets: [(&str, Target); 6] = [
        ("filter", targets::filter),
        ("dn", targets::dn),
        ("timestamp", targets::timestamp),
        ("members", targets::members),
        ("ldif", targets::ldif),
        ("udm_list", targets::udm_list),
    ];
    for (name, target) in targets {
        let mut files = 0;
        for file in std::fs::read_dir(corpus.join(name)).unwrap() {
            let data = std::fs::read(file.unwrap().path()).unwrap();
            for end in (0..data.len()).step_by(data.len().div_ceil(60).max(1)).chain([data.len()]) {
                target(&data[..end]);
            }
            files += 1;
        }
        assert!(files > 0, "{name} has no corpus");
    }
}
