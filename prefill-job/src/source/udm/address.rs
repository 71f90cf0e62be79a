//! Addresses below the one base that gets our credentials.
//!
//! UDM's own links name the host that some request came in by, which behind a proxy is another one than ours. So
//! they are never followed: each address is made from base, type and DN.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::Url;
use uuid::Uuid;

use crate::source::SourceError;

/// What UDM leaves alone in a path (Python's `urllib.parse.quote`): letters, digits and these.
const UNQUOTED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~').remove(b'/');

/// The query of a list that names its objects and no more: everything else blocks UDM's one process while it runs.
const NAMES_ONLY: &str = "scope=sub&hidden=true&opened=0&properties=dn";

/// The address of the API: ends in `/udm/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    url: Url,
}

impl Base {
    /// Reads the setting, with or without the trailing `udm/`.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let refused = |problem: String| SourceError::Setting {
            setting: "UDM base URL",
            problem: format!("{problem}; it looks like http://ums-udm-rest-api:9979/univention/udm/"),
        };
        // Not shown in the other messages either, since they come after this one.
        if text.contains('@') {
            return Err(refused("it must not hold credentials, which have settings of their own".to_owned()));
        }
        let mut url =
            Url::parse(text.trim()).map_err(|e| refused(format!("{text:?} is no address ({e})")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(refused(format!("{text:?} does not begin with http://<host> or https://<host>")));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refused(format!("{text:?} has a query or a fragment")));
        }
        let path = url.path().trim_end_matches('/');
        let prefix = path.strip_suffix("/udm").unwrap_or(path);
        let path = format!("{prefix}/udm/");
        url.set_path(&path);
        Ok(Self { url })
    }

    /// The index of modules.
    pub fn index(&self) -> Url {
        self.url.clone()
    }

    /// A module's list of names.
    pub fn list(&self, module: &str) -> Url {
        let mut url = self.below(&format!("{}/", quoted(module)));
        url.set_query(Some(NAMES_ONLY));
        url
    }

    /// The list of a module's objects that lack an attribute in LDAP.
    pub fn lacking(&self, module: &str, attribute: &str) -> Url {
        self.filtered(module, &format!("(!({attribute}=*))"))
    }

    /// The entries of a module's list whose UUID is within a range, both ends included.
    pub fn part(&self, module: &str, from: Uuid, to: Uuid) -> Url {
        self.filtered(module, &format!("(&(entryUUID>={from})(entryUUID<={to}))"))
    }

    /// The entry of a module's list that has this UUID.
    pub fn find(&self, module: &str, uuid: Uuid) -> Url {
        self.filtered(module, &format!("(entryUUID={uuid})"))
    }

    fn filtered(&self, module: &str, filter: &str) -> Url {
        let mut url = self.list(module);
        url.query_pairs_mut().append_pair("filter", filter);
        url
    }

    /// Leads to the object of this UUID, whatever its type.
    pub fn by_uuid(&self, uuid: Uuid) -> Url {
        self.below(&format!("object/{uuid}"))
    }

    /// The DN in an object's address, whatever its host.
    pub fn dn_of(url: &Url) -> Option<String> {
        let (_, below) = url.path().split_once("/udm/")?;
        let quoted = below.splitn(3, '/').nth(2)?;
        let dn = percent_decode_str(quoted).decode_utf8().ok()?.replace(",/=/,", "//");
        dn.contains('=').then_some(dn)
    }

    /// One object.
    pub fn object(&self, object_type: &str, dn: &str) -> Url {
        // Proxies make one slash of two, so UDM has a word of its own for two.
        self.below(&format!("{}/{}", quoted(object_type), quoted(&dn.replace("//", ",/=/,"))))
    }

    /// Is this where our credentials may go?
    pub fn is_same_origin(&self, url: &Url) -> bool {
        self.url.origin() == url.origin()
    }

    /// Is TLS spoken?
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    fn below(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path()));
        url
    }
}

/// A path's text. Segments of one or two dots would be resolved away, also when they are quoted: only then, their
/// slashes are quoted.
fn quoted(text: &str) -> String {
    let quoted = utf8_percent_encode(text, UNQUOTED).to_string();
    let resolved = quoted.split('/').any(|segment| matches!(segment, "." | ".."));
    if resolved { quoted.replace('/', "%2F") } else { quoted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_read_in_all_its_forms() {
        for (text, base) in [
            ("http://udm:9979/univention/udm/", "http://udm:9979/univention/udm/"),
            ("http://udm:9979/univention/udm", "http://udm:9979/univention/udm/"),
            ("http://udm:9979/univention/", "http://udm:9979/univention/udm/"),
            ("http://udm:9979/univention", "http://udm:9979/univention/udm/"),
            ("http://udm:9979", "http://udm:9979/udm/"),
            (" https://udm/udm/\n", "https://udm/udm/"),
            ("https://[::1]:1/a/b//", "https://[::1]:1/a/b/udm/"),
        ] {
            assert_eq!(Base::parse(text).unwrap().index().as_str(), base, "{text}");
        }
    }

    #[test]
    fn what_is_no_base_is_refused_with_the_name_of_the_setting() {
        for text in [
            "",
            "udm:9979",
            "ums-udm-rest-api",
            "/univention/udm",
            "ftp://udm/",
            "http://",
            "http://udm/?a=b",
            "http://udm/#x",
        ] {
            let error = Base::parse(text).unwrap_err();
            assert!(error.to_string().contains("UDM base URL"), "{error}");
            assert!(!error.is_transient());
        }
        let error = Base::parse("http://admin:secret@udm/").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn each_dn_is_one_path_that_nobody_resolves() {
        let base = Base::parse("http://udm:9979/univention").unwrap();
        for (dn, path) in [
            ("uid=jane,cn=users,dc=x", "uid%3Djane%2Ccn%3Dusers%2Cdc%3Dx"),
            ("ou=Werk 1/2,dc=x", "ou%3DWerk%201/2%2Cdc%3Dx"),
            ("ou=a//b,dc=x", "ou%3Da%2C/%3D/%2Cb%2Cdc%3Dx"),
            ("ou=a/../b,dc=x", "ou%3Da%2F..%2Fb%2Cdc%3Dx"),
            (
                "ou=ä?#%2e&;\\,\"<>{}|^`,dc=x",
                "ou%3D%C3%A4%3F%23%252e%26%3B%5C%2C%22%3C%3E%7B%7D%7C%5E%60%2Cdc%3Dx",
            ),
        ] {
            let url = base.object("users/user", dn);
            assert_eq!(url.as_str(), format!("http://udm:9979/univention/udm/users/user/{path}"));
        }
        let lacking = base.lacking("users/user", "a");
        assert!(
            lacking.query().unwrap().ends_with("&properties=dn&filter=%28%21%28a%3D*%29%29"),
            "{lacking}"
        );
        let list = base.list("users/user");
        assert_eq!(list.path(), "/univention/udm/users/user/");
        assert!(list.query().unwrap().contains("opened=0"));
    }

    #[test]
    fn only_the_same_scheme_host_and_port_are_the_same_origin() {
        let base = Base::parse("https://udm:443/").unwrap();
        for (url, same) in [
            ("https://udm/x", true),
            ("http://udm/x", false),
            ("https://udm:444/x", false),
            ("https://udm.evil/x", false),
            ("https://evil/udm", false),
        ] {
            assert_eq!(base.is_same_origin(&Url::parse(url).unwrap()), same, "{url}");
        }
    }
}
