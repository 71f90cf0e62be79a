//! The directory: generated objects, with everything that was put, changed, moved or removed since.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::modules::Modules;
use crate::object::{Head, Object};
use crate::population::{CONTAINERS, Generated, Population};

/// Modules whose objects are generated.
const GENERATED: [&str; 2] = ["users/user", "groups/group"];

/// A handle on the directory. Clones show the same directory; a running server serves each change at once.
///
/// There is no referential integrity: who is removed stays a member of its groups, as in an LDAP without overlays.
#[derive(Clone, Debug)]
pub struct Directory {
    generated: Arc<Generated>,
    state: Arc<RwLock<State>>,
}

#[derive(Debug, Default)]
struct State {
    modules: Modules,
    /// Objects that are not, or no longer, as generated: in the order in which they were put.
    put: BTreeMap<u64, Arc<Object>>,
    by_dn: HashMap<String, u64>,
    next: u64,
    /// Generated objects that were removed, changed or moved.
    gone: HashMap<&'static str, HashSet<u32>>,
}

/// What a list shows: a picture of one moment, written out later piece by piece.
#[derive(Clone, Debug)]
pub struct Listing {
    generated: Arc<Generated>,
    places: Vec<Place>,
}

/// Where a listed object comes from.
#[derive(Clone, Debug)]
enum Place {
    Generated(&'static str, u32),
    Put(Arc<Object>),
}

impl Directory {
    /// A directory without any object but its base.
    #[must_use]
    pub fn empty() -> Self {
        Self::bare(Population::default())
    }

    /// Users and groups as asked for, and a few objects of the other modules.
    #[must_use]
    pub fn generated(population: Population) -> Self {
        let directory = Self::bare(population);
        for object in furniture(directory.base()) {
            directory.insert(object);
        }
        directory
    }

    fn bare(population: Population) -> Self {
        Self { generated: Arc::new(Generated::new(population)), state: Arc::default() }
    }

    /// LDAP base.
    #[must_use]
    pub fn base(&self) -> &str {
        self.generated.base()
    }

    /// Adds an object, or puts it in the place of the one with the same DN. A type that is unknown becomes a module.
    ///
    /// # Errors
    /// What is wrong with the text: see [`Object::from_json`].
    pub fn put(&self, json: &str) -> Result<(), String> {
        self.insert(Object::from_json(json)?);
        Ok(())
    }

    /// Adds or replaces an object.
    pub fn insert(&self, object: Object) {
        let mut state = self.write();
        self.take(&mut state, &object.head.dn);
        state.modules.add(&object.head.object_type);
        let place = state.next;
        state.next += 1;
        state.by_dn.insert(object.head.dn.to_lowercase(), place);
        state.put.insert(place, Arc::new(object));
    }

    /// Removes an object; `None` if there is none of that DN.
    pub fn remove(&self, dn: &str) -> Option<Arc<Object>> {
        self.take(&mut self.write(), dn)
    }

    /// Gives an object a new DN, and a position to fit; false if there is none of the old one.
    pub fn rename(&self, dn: &str, new_dn: &str) -> bool {
        let Some(old) = self.remove(dn) else { return false };
        let position = crate::object::parent(new_dn);
        let mut members = old.members.clone();
        for (key, from, to) in
            [("dn", old.head.dn.as_str(), new_dn), ("position", &old.head.position, position)]
        {
            let text = |colon: &str, value: &str| format!("\"{key}\"{colon}{}", crate::json::string(value));
            for colon in [": ", ":"] {
                members = members.replacen(&text(colon, from), &text(colon, to), 1);
            }
        }
        let head = Head { dn: new_dn.to_owned(), position: position.to_owned(), ..old.head.clone() };
        self.insert(Object { head, members, references: old.references.clone() });
        true
    }

    /// Adds an empty module, as installing an extension does.
    pub fn add_module(&self, name: &str) {
        self.write().modules.add(name);
    }

    /// The object of a DN, whatever its type.
    #[must_use]
    pub fn get(&self, dn: &str) -> Option<Arc<Object>> {
        let state = self.read();
        if let Some(place) = state.by_dn.get(&dn.to_lowercase()) {
            return state.put.get(place).cloned();
        }
        GENERATED.iter().find_map(|module| {
            let index = self.generated.index_of(module, dn)?;
            let gone = state.gone.get(module).is_some_and(|gone| gone.contains(&index));
            (!gone).then(|| Arc::new(self.generated.object(module, index)))
        })
    }

    /// The object of an entryUUID.
    #[must_use]
    pub fn get_by_uuid(&self, uuid: &str) -> Option<Arc<Object>> {
        if let Some(object) = self.read().put.values().find(|object| object.head.uuid == uuid) {
            return Some(Arc::clone(object));
        }
        let found = GENERATED.iter().find_map(|module| {
            self.list(module).heads().find(|head| head.uuid == uuid).map(|head| head.dn)
        })?;
        self.get(&found)
    }

    /// The modules of the index.
    #[must_use]
    pub fn modules(&self) -> Modules {
        self.read().modules.clone()
    }

    /// Number of objects in a module's list.
    #[must_use]
    pub fn count(&self, module: &str) -> usize {
        self.list(module).len()
    }

    /// DNs in the order of a module's list.
    #[must_use]
    pub fn dns(&self, module: &str) -> Vec<String> {
        self.list(module).heads().map(|head| head.dn).collect()
    }

    /// A module's list as it is now.
    #[must_use]
    pub fn list(&self, module: &str) -> Listing {
        let state = self.read();
        let listed = state.modules.listed_types(module);
        let mut places = Vec::new();
        for module in GENERATED.into_iter().filter(|generated| listed.iter().any(|l| l == generated)) {
            let gone = state.gone.get(module);
            let here = |index: &u32| gone.is_none_or(|gone| !gone.contains(index));
            places
                .extend((0..self.generated.count(module)).filter(here).map(|i| Place::Generated(module, i)));
        }
        let put = state.put.values().filter(|object| listed.contains(&object.head.object_type));
        places.extend(put.cloned().map(Place::Put));
        Listing { generated: Arc::clone(&self.generated), places }
    }

    fn take(&self, state: &mut State, dn: &str) -> Option<Arc<Object>> {
        if let Some(place) = state.by_dn.remove(&dn.to_lowercase()) {
            return state.put.remove(&place);
        }
        GENERATED.into_iter().find_map(|module| {
            let index = self.generated.index_of(module, dn)?;
            let first = state.gone.entry(module).or_default().insert(index);
            first.then(|| Arc::new(self.generated.object(module, index)))
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listing {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Is there nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Leaves only the entries that are wanted.
    pub fn retain(&mut self, wanted: impl Fn(&Head) -> bool) {
        let generated = Arc::clone(&self.generated);
        self.places.retain(|place| wanted(&place.head(&generated)));
    }

    /// Leaves only the entries of a page.
    pub fn page(&mut self, page: std::ops::Range<usize>) {
        self.places.truncate(page.end);
        self.places.drain(..page.start.min(self.places.len()));
    }

    /// The entries, made one by one.
    pub fn heads(&self) -> impl Iterator<Item = Head> + Send + '_ {
        self.places.iter().map(|place| place.head(&self.generated))
    }

    /// The objects, made one by one.
    pub fn objects(&self) -> impl Iterator<Item = Arc<Object>> + Send + '_ {
        self.places.iter().map(|place| place.object(&self.generated))
    }

    /// The entries' texts, made one by one by an iterator that owns what it reads from.
    pub fn into_texts(
        self,
        opened: bool,
        links: crate::links::Links,
    ) -> impl Iterator<Item = String> + Send + 'static {
        let Self { generated, places } = self;
        places.into_iter().enumerate().map(move |(index, place)| {
            let text = match opened {
                true => place.object(&generated).got(&links),
                false => place.head(&generated).listed(&links),
            };
            if index == 0 { text } else { format!(", {text}") }
        })
    }
}

impl Place {
    fn head(&self, generated: &Generated) -> Head {
        match self {
            Self::Generated(module, index) => generated.head(module, *index),
            Self::Put(object) => object.head.clone(),
        }
    }

    fn object(&self, generated: &Generated) -> Arc<Object> {
        match self {
            Self::Generated(module, index) => Arc::new(generated.object(module, *index)),
            Self::Put(object) => Arc::clone(object),
        }
    }
}

/// Objects of the other modules, in small numbers.
fn furniture(base: &str) -> Vec<Object> {
    let mut objects = Vec::new();
    let mut add = |object_type: &str, dn: String, properties: &str, superordinate: Option<String>| {
        let name = crate::object::rdn_value(&dn).replace('\\', "");
        let head = Head {
            object_type: object_type.to_owned(),
            position: crate::object::parent(&dn).to_owned(),
            uuid: crate::object::derived_uuid(&dn),
            id: name.clone(),
            hidden: properties.contains("\"hidden\""),
            superordinate,
            dn,
        };
        let mut members = crate::json::Members::default();
        members.string("dn", &head.dn).string("objectType", object_type).string("id", &head.id);
        members.string("position", &head.position).string("uuid", &head.uuid);
        members.constant(r#""options": {}, "policies": {}"#);
        let name = crate::json::string(&name);
        members.raw("properties", &format!("{{\"name\": {name}, {properties}}}"));
        if let Some(superordinate) = &head.superordinate {
            members.string("superordinate", superordinate);
        }
        objects.push(Object { head, members: members.into_text(), references: Vec::new() });
    };
    let plain = r#""description": null, "objectFlag": []"#;
    for name in ["users", "groups", "univention", "computers", "dns"] {
        add("container/cn", format!("cn={name},{base}"), plain, None);
    }
    for container in CONTAINERS {
        add("container/ou", format!("{container},{base}"), plain, None);
    }
    for number in 1..=3 {
        add("computers/linux", format!("cn=rechner{number},cn=computers,{base}"), plain, None);
        add("computers/windows", format!("cn=arbeitsplatz{number},cn=computers,{base}"), plain, None);
    }
    let zone = format!("zoneName=example.org,cn=dns,{base}");
    add("dns/forward_zone", zone.clone(), plain, None);
    for host in ["www", "mail"] {
        add("dns/alias", format!("relativeDomainName={host},{zone}"), plain, Some(zone.clone()));
    }
    add("mail/domain", format!("cn=example.org,cn=univention,{base}"), plain, None);
    for context in 1..=3 {
        let properties = format!(r#""oxQuota": "10240", "contextid": "{context}", "objectFlag": []"#);
        add("oxmail/oxcontext", format!("cn=context{context},cn=univention,{base}"), &properties, None);
    }
    for profile in ["premium", "standard", "webmail", "groupware", "none"] {
        add("oxmail/accessprofile", format!("cn={profile},cn=univention,{base}"), plain, None);
    }
    add("portals/portal", format!("cn=domain,cn=univention,{base}"), plain, None);
    for number in 1..=12 {
        add("portals/entry", format!("cn=kachel{number},cn=univention,{base}"), plain, None);
    }
    for number in 1..=100 {
        let properties = r#""syntax": "string", "ldapMapping": "univentionFreeAttribute1", "objectFlag": []"#;
        add(
            "settings/extended_attribute",
            format!("cn=attribut{number},cn=univention,{base}"),
            properties,
            None,
        );
    }
    let marker = r#""description": "alle Erweiterungen sind geladen", "objectFlag": ["hidden"]"#;
    add("settings/data", format!("cn=stack-data-ums.done,cn=univention,{base}"), marker, None);
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        Directory::generated(Population { users: 20, groups: 3, ..Population::default() })
    }

    #[test]
    fn changes_show_in_lists_and_objects() {
        let directory = directory();
        let dns = directory.dns("users/user");
        assert_eq!(dns.len(), 20);

        assert!(directory.remove(&dns[3]).is_some());
        assert!(directory.remove(&dns[3]).is_none(), "removed twice");
        assert!(directory.get(&dns[3]).is_none());

        let changed =
            format!("{{\"dn\": {}, \"objectType\": \"users/user\", \"n\": 1}}", crate::json::string(&dns[5]));
        directory.put(&changed).unwrap();
        assert_eq!(format!("{{{}}}", directory.get(&dns[5]).unwrap().members), changed);

        let moved = format!("uid=anders,cn=users,{}", directory.base());
        assert!(directory.rename(&dns[7], &moved));
        assert!(directory.get(&dns[7]).is_none());
        let object = directory.get(&moved).unwrap();
        assert_eq!(Object::from_json(&format!("{{{}}}", object.members)).unwrap().head.dn, moved);

        let now = directory.dns("users/user");
        assert_eq!(now.len(), 19);
        assert_eq!(now[17..], [dns[5].clone(), moved]);
    }

    #[test]
    fn furniture_is_valid_and_virtual_modules_show_their_children() {
        let directory = directory();
        for module in directory.modules().names() {
            for object in directory.list(module).objects() {
                let read = Object::from_json(&format!("{{{}}}", object.members)).unwrap();
                assert_eq!(read.head, object.head);
            }
        }
        let types: HashSet<_> = directory.list("computers/computer").heads().map(|h| h.object_type).collect();
        assert_eq!(types.len(), 2);
        assert_eq!(directory.count("users/passwd"), 20);
        assert_eq!(directory.count("nothing/here"), 0);
    }
}
