//! From a path to what is asked for.

use crate::links::unquote_dn;

/// What a path below the prefix names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/udm/`
    Index,
    /// `/udm/users/`: the index of one flavour.
    Flavour(String),
    /// `/udm/users/user/`
    List(String),
    /// `/udm/users/user/uid%3D…`
    Object {
        /// Module in the path, which must be the object's.
        module: String,
        /// DN, unquoted.
        dn: String,
    },
    /// `/udm/object/<dn or uuid>`
    AnyObject(String),
    /// `/udm/ldap/base/`
    Base,
    /// `/udm/-/reload`
    Reload,
    /// Anything else.
    Unknown,
}

/// Takes a path apart. `path` is quoted, and begins after the prefix.
#[must_use]
pub fn route(path: &str) -> Route {
    let Some(path) = path.strip_prefix("/udm/") else { return Route::Unknown };
    match path {
        "" => return Route::Index,
        "ldap/base/" => return Route::Base,
        "-/reload" => return Route::Reload,
        _ => {}
    }
    if let Some(rest) = path.strip_prefix("object/").filter(|rest| !rest.is_empty()) {
        return unquote_dn(rest).map_or(Route::Unknown, Route::AnyObject);
    }
    match path.splitn(3, '/').collect::<Vec<_>>()[..] {
        [flavour, ""] => Route::Flavour(flavour.to_owned()),
        [family, name, ""] => Route::List(format!("{family}/{name}")),
        [family, name, rest] => match unquote_dn(rest) {
            Some(dn) if dn.contains('=') => Route::Object { module: format!("{family}/{name}"), dn },
            _ => Route::Unknown,
        },
        _ => Route::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let object = |module: &str, dn: &str| Route::Object { module: module.to_owned(), dn: dn.to_owned() };
        for (path, expected) in [
            ("/udm/", Route::Index),
            ("/udm/users/", Route::Flavour("users".to_owned())),
            ("/udm/users/user/", Route::List("users/user".to_owned())),
            ("/udm/users/user/uid%3Da%2Cdc%3Dx", object("users/user", "uid=a,dc=x")),
            ("/udm/container/ou/ou%3DWerk%201/2%2Cdc%3Dx", object("container/ou", "ou=Werk 1/2,dc=x")),
            ("/udm/container/ou/ou%3Da%2C/%3D/%2Cb", object("container/ou", "ou=a//b")),
            ("/udm/object/uid%3Da", Route::AnyObject("uid=a".to_owned())),
            ("/udm/ldap/base/", Route::Base),
            ("/udm/-/reload", Route::Reload),
            ("/udm/users/user/add", Route::Unknown),
            ("/udm/users/user", Route::Unknown),
            ("/udm", Route::Unknown),
            ("/", Route::Unknown),
        ] {
            assert_eq!(route(path), expected, "{path}");
        }
    }
}
