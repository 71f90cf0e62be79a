//! What objects of UDM show of *other* entries: noted while the dump is scanned, in some bytes for each entry.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
};

use model::Dn;

use super::entry::Attributes;
use super::unmap::{Definition, Kind, UdmOption};

/// What the entries of a dump tell of each other.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The DNs of groups, in the order of the dump.
    groups: Vec<String>,
    /// The first group of each `gidNumber`.
    by_gid: HashMap<String, usize>,
    /// Which groups have a member, by the hash of its DN. Users are not noted: they show their groups themselves.
    holders: HashMap<u64, Vec<usize>>,
    /// What entries are as members of a group, by the hash of their DN. Not of those that are named by `uid`.
    kinds: HashMap<u64, Kind>,
    /// The types of policies, by the hash of their DN.
    policies: HashMap<u64, String>,
    /// Extended attributes, by the modules that have them.
    definitions: BTreeMap<String, Vec<Definition>>,
    /// Extended options, by the modules that have them.
    options: BTreeMap<String, Vec<UdmOption>>,
    /// Seconds for which an account stays locked.
    lockout: Option<i64>,
    /// Types of which the dump has an object with all classes that UDM asks for.
    complete: HashSet<&'static str>,
    /// All entries, to find those that come twice.
    seen: HashSet<u64>,
    hasher: RandomState,
}

impl Facts {
    /// Notes an entry. False: its DN came before.
    pub fn note(&mut self, entry: &Attributes<'_>) -> bool {
        let place = self.hash(entry.dn);
        if !self.seen.insert(place) {
            return false;
        }
        let is_group = entry.is_a("posixGroup");
        if is_group || entry.is_a("sambaGroupMapping") {
            let index = self.groups.len();
            self.groups.push(entry.dn.to_owned());
            if let Some(gid) = entry.text("gidnumber") {
                self.by_gid.entry(gid.to_owned()).or_insert(index);
            }
            let members = entry.texts("uniquemember").filter(|member| is_group && !is_user(member));
            for member in members {
                let member = self.hash(member);
                self.holders.entry(member).or_default().push(index);
            }
        }
        if let Some(kind) = Kind::of(entry).filter(|_| !is_user(entry.dn)) {
            self.kinds.insert(place, kind);
        }
        if let Some(policy) = entry.object_type().filter(|name| name.starts_with("policies/")) {
            self.policies.insert(place, policy.to_owned());
        }
        if entry.is_a("sambaDomain") && self.lockout.is_none() {
            self.lockout = Some(entry.number("sambalockoutduration").unwrap_or(0));
        }
        if let Some((modules, definition)) = Definition::of(entry) {
            for module in modules {
                self.definitions.entry(module).or_default().push(definition.clone());
            }
        }
        if let Some((modules, option)) = UdmOption::of(entry) {
            for module in modules {
                self.options.entry(module).or_default().push(option.clone());
            }
        }
        true
    }

    /// Notes an object that is no entry. False: it came before.
    pub fn note_object(&mut self, dn: &str, object_type: &str) -> bool {
        self.seen.insert(self.hasher.hash_one((Dn::key(dn), object_type)))
    }

    /// Notes that an object of the type has all classes that UDM asks for.
    pub fn note_complete(&mut self, object_type: &'static str) {
        self.complete.insert(object_type);
    }

    /// Has the dump an object of the type with all classes that UDM asks for?
    pub fn has_complete(&self, object_type: &str) -> bool {
        self.complete.contains(object_type)
    }

    /// Which DNs there are is only asked while the dump is scanned.
    pub fn scanned(&mut self) {
        self.seen = HashSet::new();
    }

    /// The group that is the primary one of users with this number.
    pub fn group_of(&self, gid: &str) -> Option<&str> {
        self.by_gid.get(gid).and_then(|index| self.groups.get(*index)).map(String::as_str)
    }

    /// The groups that hold an entry that is no user.
    pub fn groups_with(&self, dn: &str) -> impl Iterator<Item = &str> {
        let holders = self.holders.get(&self.hash(dn)).map_or(&[][..], Vec::as_slice);
        holders.iter().filter_map(|index| self.groups.get(*index)).map(String::as_str)
    }

    /// What a member of a group is; `None` if there is no such entry, or it can't be one.
    pub fn kind_of(&self, member: &str) -> Option<Kind> {
        if is_user(member) { Some(Kind::User) } else { self.kinds.get(&self.hash(member)).copied() }
    }

    /// The type of a policy.
    pub fn policy_of(&self, dn: &str) -> Option<&str> {
        self.policies.get(&self.hash(dn)).map(String::as_str)
    }

    /// The extended attributes of a module.
    pub fn definitions(&self, module: &str) -> &[Definition] {
        self.definitions.get(module).map_or(&[], Vec::as_slice)
    }

    /// The extended options of a module.
    pub fn options(&self, module: &str) -> &[UdmOption] {
        self.options.get(module).map_or(&[], Vec::as_slice)
    }

    /// Seconds for which an account stays locked, `0` for ever; `None` if the dump does not tell.
    pub fn lockout(&self) -> Option<i64> {
        self.lockout
    }

    fn hash(&self, dn: &str) -> u64 {
        self.hasher.hash_one(Dn::key(dn))
    }
}

/// UDM takes for a user what is named by `uid`, without a look at its entry.
fn is_user(dn: &str) -> bool {
    dn.get(..4).is_some_and(|begin| begin.eq_ignore_ascii_case("uid="))
}
