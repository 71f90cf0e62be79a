//! Which objects of its topics a subscription gets, and which properties of them.
//!
//! ```text
//!  Selection (as it was asked for) ─► Selector ─┬─► object of a snapshot: in or out, properties left out
//!                                               └─► change: old in? new in? ─► Crossing ─► the change as it is seen
//! ```
//!
//! From inside the selection the directory looks as if nothing else existed: an object that leaves it is deleted, one
//! that enters it is new.

mod coverage;
mod filter;
mod parser;
mod size;

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    Dn, Message,
    json::{self, Members},
    message::Body,
    topic::UDM_REALM,
};
pub use coverage::Coverage;
use filter::Filter;
pub use size::{LONGEST_FILTER, LONGEST_POSITION, LONGEST_PROPERTY, MOST_CONDITIONS};

/// Names of properties that may be listed.
const NAMES_MAX: usize = 1_000;

/// What a subscription asked for. It never changes in the life of the subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// LDAP filter (RFC 4515) over names of UDM properties.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// DN: this object and what lies below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Which properties come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<Properties>,
}

/// Which properties of an object come. Everything besides its properties always does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Properties {
    /// These only.
    Keep(Vec<String>),
    /// All but these.
    Strip(Vec<String>),
}

/// Why a selection can't be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct SelectionError {
    /// Part of the selection: `filter`, `position` or `properties`.
    pub field: &'static str,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// A selection, ready to be evaluated.
#[derive(Clone, Debug)]
pub struct Selector {
    filter: Option<Filter>,
    /// Parsed, and as it was written.
    position: Option<(Dn, String)>,
    properties: Option<Properties>,
}

/// What becomes of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// It happens inside: it comes as it is.
    Inside,
    /// The object enters the selection: it comes as a creation.
    Enters,
    /// The object leaves the selection: it comes as a deletion.
    Leaves,
    /// It happens outside, and does not come.
    Outside,
}

impl Crossing {
    /// From whether the object was selected before the change (`None`: it was not there), and is after it.
    #[must_use]
    pub fn of(old: Option<bool>, new: Option<bool>) -> Self {
        match (old, new) {
            (Some(true), Some(true)) => Self::Inside,
            // A creation or a deletion inside stays what it is.
            (None, Some(true)) | (Some(true), None) => Self::Inside,
            (Some(false), Some(true)) => Self::Enters,
            (Some(true), Some(false)) => Self::Leaves,
            (None | Some(false), None | Some(false)) => Self::Outside,
        }
    }
}

/// What a subscription sees of a stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// All of it, as it is.
    AsItIs,
    /// This instead.
    Changed(Vec<u8>),
    /// Nothing.
    Nothing,
}

impl Selection {
    /// Does it ask for anything?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Makes it ready.
    ///
    /// # Errors
    /// [`SelectionError`] for the first part that can't be evaluated.
    pub fn compile(&self) -> Result<Selector, SelectionError> {
        let Self { filter, position, properties } = self;
        let wrong = |field, problem: String| SelectionError { field, problem };
        let filter = filter.as_deref().map(Filter::parse).transpose().map_err(|p| wrong("filter", p))?;
        let position = position
            .as_deref()
            .map(|text| text.parse::<Dn>().map(|dn| (dn, text.to_owned())))
            .transpose()
            .map_err(|e| wrong("position", e.to_string()))?;
        if let Some(properties) = properties {
            properties.check().map_err(|problem| wrong("properties", problem))?;
        }
        Ok(Selector { filter, position, properties: properties.clone() })
    }
}

impl Properties {
    fn names(&self) -> &[String] {
        let (Self::Keep(names) | Self::Strip(names)) = self;
        names
    }

    fn check(&self) -> Result<(), String> {
        let names = self.names();
        match self {
            // A list of nothing to keep has a meaning: that there is an object.
            Self::Strip(names) if names.is_empty() => {
                return Err("strip names at least one property".to_owned());
            }
            _ if names.len() > NAMES_MAX => {
                return Err(format!("more than {NAMES_MAX} properties are named"));
            }
            _ => {}
        }
        let empty = names.iter().any(|name| name.trim().is_empty());
        if empty { Err("the name of a property is empty".to_owned()) } else { Ok(()) }
    }

    fn leaves_out(&self, name: &str) -> bool {
        // As in the filter: who mistakes a capital letter still means to strip it.
        let named = self.names().iter().any(|listed| listed.eq_ignore_ascii_case(name));
        match self {
            Self::Keep(_) => !named,
            Self::Strip(_) => named,
        }
    }
}

impl Selector {
    /// Watches which parts of the selection a snapshot meets.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        let mut named = Vec::new();
        if let Some(filter) = &self.filter {
            filter.names(&mut named);
        }
        let mut names: Vec<(String, &'static str)> = Vec::new();
        let listed =
            self.properties.iter().flat_map(Properties::names).map(|name| (name.as_str(), "properties"));
        for (name, part) in named.into_iter().map(|name| (name, "filter")).chain(listed) {
            if !names.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
                names.push((name.to_owned(), part));
            }
        }
        Coverage { position: self.position.clone(), names, any: false }
    }

    /// An object of a snapshot as the subscription gets it; `None` if it is not selected.
    ///
    /// # Errors
    /// The text is no JSON object.
    pub fn object<'a>(&self, text: &'a str) -> serde_json::Result<Option<Cow<'a, str>>> {
        let members = Members::of(text)?;
        if self.selects(&members)? { self.shown(&members).map(Some) } else { Ok(None) }
    }

    /// A stored event as the subscription gets it. Events of other realms than `udm` are not looked at.
    ///
    /// # Errors
    /// It is no message.
    pub fn event(&self, stored: &[u8]) -> serde_json::Result<Seen> {
        let message: Message = serde_json::from_slice(stored)?;
        if message.realm != UDM_REALM {
            return Ok(Seen::AsItIs);
        }
        let (old, new) = (Members::of(message.body.old.get())?, Members::of(message.body.new.get())?);
        let selected = |side: &Members<'_>| match side.is_empty() {
            true => Ok(None),
            false => self.selects(side).map(Some),
        };
        let crossing = Crossing::of(selected(&old)?, selected(&new)?);
        let (keeps_old, keeps_new) = match crossing {
            Crossing::Inside if self.properties.is_none() => return Ok(Seen::AsItIs),
            Crossing::Inside => (true, true),
            Crossing::Enters => (false, true),
            Crossing::Leaves => (true, false),
            Crossing::Outside => return Ok(Seen::Nothing),
        };
        let side = |side: &Members<'_>, kept: bool| match kept {
            true => RawValue::from_string(self.shown(side)?.into_owned()),
            false => RawValue::from_string("{}".to_owned()),
        };
        let body = Body { old: side(&old, keeps_old)?, new: side(&new, keeps_new)? };
        serde_json::to_vec(&Message { body, ..message }).map(Seen::Changed)
    }

    fn selects(&self, object: &Members<'_>) -> serde_json::Result<bool> {
        if let Some((base, _)) = &self.position {
            let dn = object.get("dn").and_then(|text| serde_json::from_str::<String>(text).ok());
            // What has no place is nowhere below one.
            if !dn.and_then(|dn| Dn::of_object(&dn)).is_some_and(|dn| dn.is_within(base)) {
                return Ok(false);
            }
        }
        match &self.filter {
            None => Ok(true),
            Some(filter) => {
                let read = |text| json::value(text).map_err(serde::de::Error::custom);
                let properties = object.get("properties").map(read).transpose()?;
                Ok(filter.is_match(&properties.unwrap_or(Value::Null)))
            }
        }
    }

    /// An object's text with the properties that come; all other bytes as they were.
    fn shown<'a>(&self, object: &Members<'a>) -> serde_json::Result<Cow<'a, str>> {
        let Some(properties) = &self.properties else { return Ok(object.without(|_| false)) };
        let Some(Ok(kept)) = object.get("properties").map(Members::of) else {
            return Ok(object.without(|_| false));
        };
        let kept = kept.without(|name| properties.leaves_out(name));
        Ok(object
            .rewritten(|name, value| Some(if name == "properties" { kept.clone() } else { value.into() })))
    }
}

#[cfg(test)]
mod tests;
