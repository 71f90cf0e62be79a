//! Addresses: how DNs stand in a path, and the `_links` that UDM puts around everything.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::json::{self, Members};
use crate::object::{Head, Object};

/// What Python's `urllib.parse.quote` leaves alone.
const UNQUOTED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~').remove(b'/');

/// A DN as one path segment (which may hold slashes): `//` becomes `,/=/,`, because proxies merge slashes.
#[must_use]
pub fn quote_dn(dn: &str) -> String {
    utf8_percent_encode(&dn.replace("//", ",/=/,"), UNQUOTED).to_string()
}

/// The DN of a path segment; `None` if it is not UTF-8.
#[must_use]
pub fn unquote_dn(quoted: &str) -> Option<String> {
    Some(percent_decode_str(quoted).decode_utf8().ok()?.replace(",/=/,", "//"))
}

/// A number that is always the same for a text (FNV-1a, then mixed).
#[must_use]
pub fn fingerprint(salt: u64, text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325 ^ salt, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    crate::population::mix(hash, salt)
}

/// Makes absolute addresses below one base.
#[derive(Clone, Debug)]
pub struct Links {
    /// Up to and without `/udm/`, e.g. `http://host:9979/univention`.
    base: String,
}

impl Links {
    /// Addresses below `base`, which ends before `/udm/`.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self { base: base.trim_end_matches('/').to_owned() }
    }

    /// The index of all modules.
    #[must_use]
    pub fn root(&self) -> String {
        format!("{}/udm/", self.base)
    }

    /// A module's list.
    #[must_use]
    pub fn module(&self, module: &str) -> String {
        format!("{}/udm/{module}/", self.base)
    }

    /// An object, under its own type.
    #[must_use]
    pub fn object(&self, head: &Head) -> String {
        format!("{}/udm/{}/{}", self.base, head.object_type, quote_dn(&head.dn))
    }

    /// The links that each object has: `(relation, address)`.
    #[must_use]
    pub fn fixed(&self, head: &Head) -> Vec<(&'static str, String)> {
        let (own, module) = (self.object(head), self.module(&head.object_type));
        vec![
            ("type", module.clone()),
            ("up", format!("{}/udm/object/{}", self.base, quote_dn(&head.position))),
            ("self", own.clone()),
            ("describedby", format!("{own}?describedby")),
            ("icon", format!("{}/udm/-/icons/{}.svg", self.base, head.object_type.replace('/', "-"))),
            ("udm:object/remove", own.clone()),
            ("udm:object/edit", format!("{own}/edit")),
            ("edit-form", format!("{own}/edit")),
            ("udm:layout", format!("{module}layout")),
            ("udm:properties", format!("{module}properties")),
            ("udm:policy-result", format!("{module}policies/policies/umc/?dn={}", quote_dn(&head.dn))),
        ]
    }

    /// The `_links` of an object, with one link for each object that it refers to.
    #[must_use]
    pub fn of_object(&self, object: &Object) -> String {
        let mut links = Members::default();
        for (relation, href) in self.fixed(&object.head) {
            links.raw(relation, &format!("[{}]", link(&href, &object.head.dn)));
        }
        let mut done = 0;
        while let Some((property, _)) = object.references.get(done) {
            let same = object.references[done..].iter().take_while(|(p, _)| p == property);
            let hrefs: Vec<_> =
                same.map(|(_, dn)| link(&format!("{}/udm/object/{}", self.base, quote_dn(dn)), dn)).collect();
            done += hrefs.len();
            links.raw(
                &format!("udm:object/property/reference/{property}"),
                &format!("[{}]", hrefs.join(", ")),
            );
        }
        links.into_object()
    }
}

fn link(href: &str, dn: &str) -> String {
    let mut link = Members::default();
    link.raw("href", &json::string(href)).string("name", dn).string("title", dn);
    link.into_object()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dn_survives_the_way_through_a_path() {
        for (dn, quoted) in [
            ("uid=jane,cn=users,dc=x", "uid%3Djane%2Ccn%3Dusers%2Cdc%3Dx"),
            ("ou=Werk 1/2,dc=x", "ou%3DWerk%201/2%2Cdc%3Dx"),
            ("ou=a//b,dc=x", "ou%3Da%2C/%3D/%2Cb%2Cdc%3Dx"),
            (
                r#"ou=\"Haus\" \+ Hof\, Süd,dc=x"#,
                "ou%3D%5C%22Haus%5C%22%20%5C%2B%20Hof%5C%2C%20S%C3%BCd%2Cdc%3Dx",
            ),
        ] {
            assert_eq!(quote_dn(dn), quoted);
            assert_eq!(unquote_dn(quoted).as_deref(), Some(dn));
        }
        assert_eq!(unquote_dn("%ff"), None);
    }
}
