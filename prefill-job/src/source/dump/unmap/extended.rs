//! Extended attributes and options: properties that an installation, or an app, adds to UDM's modules. Their
//! definitions are entries of the directory.

use std::collections::HashSet;

use model::string_prep::attribute_name;
use serde_json::{Map, Value, json};

use super::super::entry::Attributes;
use super::{secret, syntax::Syntax};

/// A property that is added to modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Definition {
    /// The property.
    name: String,
    /// Its LDAP attribute, in small letters.
    pub attribute: String,
    syntax: Syntax,
    many: bool,
    /// What is shown where nothing is set.
    default: Vec<String>,
    /// Options of which an object must have one; none: it is always there.
    options: Vec<String>,
}

/// An option that is added to modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct UdmOption {
    name: String,
    /// The classes that an object with the option has.
    classes: Vec<String>,
}

impl Definition {
    /// The definition that an entry is, and the modules that it is for.
    pub fn of(entry: &Attributes<'_>) -> Option<(Vec<String>, Self)> {
        // UDM reads no other version.
        if !entry.is_a("univentionUDMProperty") || entry.text("univentionudmpropertyversion") != Some("2") {
            return None;
        }
        let text = |name: &str| entry.text(name).unwrap_or_default();
        let texts = |name: &str| entry.texts(name).map(str::to_owned).collect::<Vec<_>>();
        let mapping = text("univentionudmpropertyldapmapping");
        let definition = Self {
            name: entry.text("univentionudmpropertycliname").filter(|name| !name.is_empty())?.to_owned(),
            attribute: attribute_name(mapping).into_owned(),
            syntax: match secret::is_shown_secret(&mapping.to_ascii_lowercase()) {
                true => Syntax::Password,
                false => Syntax::named(text("univentionudmpropertysyntax")),
            },
            many: text("univentionudmpropertymultivalue") == "1",
            default: texts("univentionudmpropertydefault"),
            options: texts("univentionudmpropertyoptions"),
        };
        Some((texts("univentionudmpropertymodule"), definition))
    }

    /// The property.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Is it shown as text?
    pub fn is_text(&self) -> bool {
        self.syntax.is_text()
    }

    fn value(&self, values: &[&[u8]], properties: &Map<String, Value>) -> Value {
        let shown = |value: &&[u8]| self.syntax.shown(value);
        // A boolean that is not set is false, whatever its default.
        if self.syntax == Syntax::Boolean && values.is_empty() {
            return if self.many { json!([false]) } else { json!(false) };
        }
        if !values.is_empty() {
            return if self.many {
                values.iter().map(shown).collect()
            } else {
                values.first().map_or(Value::Null, shown)
            };
        }
        let default = |text: &String| self.syntax.shown(filled(text, properties).as_bytes());
        match self.many {
            true => self.default.iter().map(default).collect(),
            false => self.default.first().map_or(Value::Null, default),
        }
    }
}

impl UdmOption {
    /// The option that an entry defines, and the modules that it is for.
    pub fn of(entry: &Attributes<'_>) -> Option<(Vec<String>, Self)> {
        if !entry.is_a("univentionUDMOption") {
            return None;
        }
        let texts = |name: &str| entry.texts(name).map(str::to_owned).collect::<Vec<_>>();
        let option =
            Self { name: entry.text("cn")?.to_owned(), classes: texts("univentionudmoptionobjectclass") };
        Some((texts("univentionudmoptionmodule"), option))
    }
}

/// Shows which of a module's options an object has; those of its extensions are added.
pub(super) fn options(
    entry: &Attributes<'_>,
    own: &[(&str, &[&str])],
    extended: &[UdmOption],
    shown: &mut Map<String, Value>,
) -> HashSet<String> {
    for (name, classes) in own {
        shown.insert((*name).to_owned(), classes.iter().all(|class| entry.is_a(class)).into());
    }
    for option in extended {
        shown.insert(option.name.clone(), option.classes.iter().all(|class| entry.is_a(class)).into());
    }
    let enabled =
        shown.iter().filter(|(_, value)| **value == Value::Bool(true)).map(|(name, _)| name.clone());
    enabled.chain(["default".to_owned()]).collect()
}

/// Adds the properties of a module's extended attributes.
pub(super) fn add(
    properties: &mut Map<String, Value>,
    entry: &Attributes<'_>,
    definitions: &[Definition],
    options: &HashSet<String>,
) {
    for (index, definition) in definitions.iter().enumerate() {
        if !definition.options.is_empty() && !definition.options.iter().any(|option| options.contains(option))
        {
            continue;
        }
        // Of several that show one attribute, UDM fills the last.
        let is_filled = definition.attribute != "objectclass"
            && !definitions.iter().skip(index + 1).any(|later| later.attribute == definition.attribute);
        let values = if is_filled { entry.all(&definition.attribute) } else { &[] };
        let value = definition.value(values, properties);
        properties.insert(definition.name.clone(), value);
    }
}

/// A template such as `/home/<username>`, filled with properties that are text.
pub(super) fn filled(template: &str, properties: &Map<String, Value>) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('<') {
        let Some((name, after)) = behind.split_once('>') else { break };
        filled.push_str(before);
        filled.push_str(properties.get(name).and_then(Value::as_str).unwrap_or_default());
        rest = after;
    }
    filled.push_str(rest);
    filled
}
