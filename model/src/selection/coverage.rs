//! What of a selection no object of a whole snapshot met: mostly a slip of the pen, which would otherwise select
//! nothing, or everything, in silence.

use crate::{Dn, json::Members};

/// Watches the objects of a snapshot, those that are not selected included.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// The position, as long as no object lies there.
    pub(super) position: Option<(Dn, String)>,
    /// Names of properties that no object has had so far, and where they are named.
    pub(super) names: Vec<(String, &'static str)>,
    pub(super) any: bool,
}

impl Coverage {
    /// Notes an object. Once all is met, this costs nothing.
    pub fn note(&mut self, object: &str) {
        self.any = true;
        if self.position.is_none() && self.names.is_empty() {
            return;
        }
        let Ok(members) = Members::of(object) else { return };
        if let Some((position, _)) = &self.position {
            let dn = members.get("dn").and_then(|text| serde_json::from_str::<String>(text).ok());
            if dn.and_then(|dn| Dn::of_object(&dn)).is_some_and(|dn| dn.is_within(position)) {
                self.position = None;
            }
        }
        if !self.names.is_empty()
            && let Some(Ok(properties)) = members.get("properties").map(Members::of)
        {
            self.names.retain(|(name, _)| !properties.has(name));
        }
    }

    /// A sentence for each part that no object met. Of a snapshot without any object nothing can be said.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        if !self.any {
            return Vec::new();
        }
        let position = self.position.iter().map(|(_, text)| {
            format!("no object is below the position {text}: check it, as nothing is selected")
        });
        let names = self.names.iter().map(|(name, part)| {
            format!(
                "no object has the property {name}, which the selection's {part} names: check its spelling"
            )
        });
        position.chain(names).collect()
    }
}
