//! What the controller is told by whoever starts it.
