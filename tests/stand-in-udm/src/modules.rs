//! The modules of a UDM with the extensions of an office installation.

use std::collections::BTreeMap;

/// Modules that are in the index but have no objects of their own: a list shows their children's.
const VIRTUAL: [(&str, &[&str]); 5] = [
    ("computers/computer", &["computers/linux", "computers/windows"]),
    ("dns/dns", &["dns/alias", "dns/forward_zone"]),
    ("policies/policy", &["policies/umc"]),
    ("portals/all", &["portals/entry", "portals/portal"]),
    ("mail/mail", &["mail/domain", "mail/folder"]),
];

/// Modules with objects of their own (or none so far), extension modules included.
const REAL: [&str; 28] = [
    "computers/linux",
    "computers/windows",
    "container/cn",
    "container/dc",
    "container/ou",
    "dns/alias",
    "dns/forward_zone",
    "groups/group",
    "mail/domain",
    "mail/folder",
    "oxmail/accessprofile",
    "oxmail/functional_account",
    "oxmail/oxcontext",
    "oxresources/oxresources",
    "policies/umc",
    "portals/announcement",
    "portals/category",
    "portals/entry",
    "portals/folder",
    "portals/portal",
    "settings/data",
    "settings/extended_attribute",
    "settings/license",
    "users/contact",
    "users/ldap",
    "users/passwd",
    "users/self",
    "users/user",
];

/// All modules, by name; the value lists the children of a virtual one.
#[derive(Clone, Debug)]
pub struct Modules {
    by_name: BTreeMap<String, Vec<String>>,
}

impl Default for Modules {
    fn default() -> Self {
        let real = REAL.iter().map(|name| ((*name).to_owned(), Vec::new()));
        let own = |children: &[&str]| children.iter().map(|c| (*c).to_owned()).collect();
        let of_others = VIRTUAL.iter().map(|(name, children)| ((*name).to_owned(), own(children)));
        Self { by_name: real.chain(of_others).collect() }
    }
}

impl Modules {
    /// Adds a module, e.g. because an object of it was put.
    pub fn add(&mut self, name: &str) {
        self.by_name.entry(name.to_owned()).or_default();
    }

    /// Names in the order of the index.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Does a module exist?
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The types whose objects a list of this module shows; empty for a module that does not exist.
    #[must_use]
    pub fn listed_types(&self, name: &str) -> Vec<String> {
        match self.by_name.get(name) {
            None => Vec::new(),
            // A view on the users; their type is the real one.
            Some(_) if name == "users/passwd" => vec!["users/user".to_owned()],
            Some(children) if children.is_empty() => vec![name.to_owned()],
            Some(children) => children.clone(),
        }
    }

    /// Is it one of those without objects of their own?
    #[must_use]
    pub fn is_virtual(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|children| !children.is_empty())
    }
}
