//! Ways into the readers of this crate for fuzzing, which has bytes only: see `fuzz/` at the top.

use super::plan::Plan;

/// The objects that an LDIF dump becomes; nothing of one that is not whole.
#[must_use]
pub fn ldif(text: &[u8]) -> Vec<String> {
    super::dump::objects_of(text).unwrap_or_default()
}

/// How many entries of users a list of the UDM REST API has; `None` if it is none.
#[must_use]
pub fn udm_list(text: &[u8]) -> Option<usize> {
    let topic =
        model::RealmTopic { realm: model::topic::UDM_REALM.to_owned(), topic: "users/user".to_owned() };
    super::udm::entries_of(text, Plan::new(&[topic]).ok()?)
}
