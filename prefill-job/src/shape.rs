//! What an object of the source becomes before it is written: selected, and in the shape that is wanted.

use std::borrow::Cow;

use model::{Selection, json::Members, prefill::PrefillTask, selection::Selector};
use serde_json::value::RawValue;

use crate::source::SnapshotObject;

/// In which shape objects of a prefill come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// As UDM gives them, byte by byte, less `_links`; so did the former service.
    #[default]
    Udm,
    /// As in live events: `id` is the property `univentionObjectIdentifier` (or empty), and there is neither `uuid`
    /// nor `uri`. Then what a consumer has of the prefill is equal to the `old` of the next change.
    Live,
}

/// Makes of an object what its subscription gets.
#[derive(Debug)]
pub(crate) struct Shaper {
    shape: Shape,
    selector: Option<Selector>,
}

impl Shaper {
    /// The error is that of a selection that can't be evaluated.
    pub(crate) fn new(shape: Shape, task: &PrefillTask) -> Result<Self, model::selection::SelectionError> {
        let selector = task.selection.as_ref().map(Selection::compile).transpose()?;
        Ok(Self { shape, selector })
    }

    /// Watches which parts of the selection a snapshot meets.
    pub(crate) fn coverage(&self) -> model::selection::Coverage {
        self.selector.as_ref().map(Selector::coverage).unwrap_or_default()
    }

    /// `None`: it is not selected.
    pub(crate) fn apply(&self, object: SnapshotObject) -> serde_json::Result<Option<SnapshotObject>> {
        if self.selector.is_none() && self.shape == Shape::Udm {
            return Ok(Some(object));
        }
        let text = object.object.get();
        let selected = match &self.selector {
            None => Cow::Borrowed(text),
            Some(selector) => match selector.object(text)? {
                None => return Ok(None),
                Some(selected) => selected,
            },
        };
        let shaped = match self.shape {
            Shape::Udm => selected,
            // The identifier is a property, which need not be among those that are selected.
            Shape::Live => Cow::Owned(as_live(&selected, identifier(text)?)?.into_owned()),
        };
        let raw = match shaped {
            Cow::Borrowed(same) if same.len() == text.len() => None,
            shaped => Some(RawValue::from_string(shaped.into_owned())?),
        };
        Ok(Some(SnapshotObject { object: raw.unwrap_or(object.object), ..object }))
    }
}

/// The text of `properties.univentionObjectIdentifier`; empty if it is not set.
fn identifier(object: &str) -> serde_json::Result<String> {
    let object = Members::of(object)?;
    let Some(Ok(properties)) = object.get("properties").map(Members::of) else {
        return Ok("\"\"".to_owned());
    };
    let identifier = properties.get("univentionObjectIdentifier").filter(|text| *text != "null");
    Ok(identifier.unwrap_or("\"\"").to_owned())
}

fn as_live(object: &str, identifier: String) -> serde_json::Result<Cow<'_, str>> {
    let members = Members::of(object)?;
    Ok(members.rewritten(|name, value| match name {
        "uuid" | "uri" => None,
        "id" => Some(Cow::Owned(identifier.clone())),
        _ => Some(Cow::Borrowed(value)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::selection::Properties;

    fn shaped(shape: Shape, selection: Option<Selection>, text: &str) -> Option<String> {
        let task = PrefillTask {
            subscription: "mail".parse().unwrap(),
            incarnation: model::Incarnation(uuid::Uuid::nil()),
            round: 1,
            attempt: 1,
            realms_topics: vec![],
            selection,
            track: false,
            mode: model::prefill::PrefillMode::Prefill,
            max_removals: None,
            dry_run: false,
        };
        let object = SnapshotObject {
            topic: "users/user".into(),
            object: RawValue::from_string(text.to_owned()).unwrap(),
            as_of: Some(7),
        };
        let shaped = Shaper::new(shape, &task).unwrap().apply(object).unwrap()?;
        assert_eq!((shaped.topic.as_str(), shaped.as_of), ("users/user", Some(7)));
        Some(shaped.object.get().to_owned())
    }

    #[test]
    fn objects_look_as_live_ones_where_that_is_wanted() {
        for (udm, live) in [
            (
                r#"{"dn": "uid=a", "id": "a", "properties": {"univentionObjectIdentifier": "ff-1",  "n": 1E9}, "uuid": "u", "uri": "http://x"}"#,
                r#"{"dn": "uid=a", "id": "ff-1", "properties": {"univentionObjectIdentifier": "ff-1",  "n": 1E9}}"#,
            ),
            (
                r#"{"uuid":"u","id":"a","properties":{"univentionObjectIdentifier":null}}"#,
                r#"{"id":"","properties":{"univentionObjectIdentifier":null}}"#,
            ),
            (r#"{"id":"a","properties":{}}"#, r#"{"id":"","properties":{}}"#),
            (r#"{"id":"a"}"#, r#"{"id":""}"#),
            (r#"{"id":"","properties":{"uuid":"kept"}}"#, r#"{"id":"","properties":{"uuid":"kept"}}"#),
        ] {
            assert_eq!(shaped(Shape::Udm, None, udm).as_deref(), Some(udm));
            assert_eq!(shaped(Shape::Live, None, udm).as_deref(), Some(live));
        }
    }

    #[test]
    fn objects_are_selected_before_they_are_shaped() {
        let text = r#"{"id":"a","uri":"x","properties":{"univentionObjectIdentifier":"ff","mail":"m"}}"#;
        let keep = Selection {
            filter: Some("(mail=*)".into()),
            properties: Some(Properties::Keep(vec!["mail".into()])),
            ..Selection::default()
        };
        let udm = r#"{"id":"a","uri":"x","properties":{"mail":"m"}}"#;
        assert_eq!(shaped(Shape::Udm, Some(keep.clone()), text).as_deref(), Some(udm));
        let live = r#"{"id":"ff","properties":{"mail":"m"}}"#;
        assert_eq!(shaped(Shape::Live, Some(keep.clone()), text).as_deref(), Some(live));
        assert_eq!(shaped(Shape::Live, Some(keep), r#"{"id":"a","properties":{}}"#), None);
    }
}
