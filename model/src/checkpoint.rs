//! The checkpoint: the last event copied into a queue.

use serde::{Deserialize, Serialize};

use crate::Incarnation;

/// The message on `<name>.copied`. It is written first in each batch of copies, on the condition that it is still
/// the last one, so a copy is exactly once over any crash of dispatcher or server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Whose queue this is.
    pub incarnation: Incarnation,
    /// Sequence in `incoming` of the last event that was looked at for this queue; 0 before activation.
    pub incoming_seq: u64,
    /// Round that live messages belong to from here on. A restarted dispatcher stamps the right one with it.
    pub round: u32,
    /// False until the marker of the registration was seen: events up to it belong to the snapshot.
    pub active: bool,
}
