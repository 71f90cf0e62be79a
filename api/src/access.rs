//! Who may ask for a route, and who was let in.

use std::sync::Arc;

use broker::Revised;
use model::{Incarnation, Subscription, SubscriptionName};

use crate::roles::Role;

/// Who may ask for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody, without credentials.
    Public,
    /// One of the fixed users.
    Role(Role),
    /// The subscription that the path names.
    Subscriber,
    /// The administrator, or the subscription that the path names.
    AdminOrSubscriber,
}

impl Access {
    /// The fixed user that may ask.
    pub(crate) fn role(self) -> Option<Role> {
        match self {
            Self::Public | Self::Subscriber => None,
            Self::Role(role) => Some(role),
            Self::AdminOrSubscriber => Some(Role::Admin),
        }
    }

    /// May the subscription ask that the path names?
    pub(crate) fn subscriber(self) -> bool {
        matches!(self, Self::Subscriber | Self::AdminOrSubscriber)
    }
}

/// Who was let in.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// One of the fixed users.
    Role(Role),
    /// The subscription itself.
    Subscriber(LoggedIn),
}

/// A subscription whose password was right.
#[derive(Clone, Debug)]
pub(crate) struct LoggedIn {
    pub entry: Arc<Revised<Subscription>>,
    /// Revision of the password's hash.
    pub revision: u64,
}

impl Caller {
    /// The name of the subscription that calls.
    pub(crate) fn subscription(&self) -> Option<&SubscriptionName> {
        match self {
            Self::Role(_) => None,
            Self::Subscriber(own) => Some(&own.entry.value.name),
        }
    }

    /// Does what was found under the name in the path belong to the caller? A subscription that was registered again
    /// meanwhile has another password.
    pub(crate) fn may_see(&self, incarnation: Incarnation) -> bool {
        match self {
            Self::Role(_) => true,
            Self::Subscriber(own) => own.entry.value.incarnation == incarnation,
        }
    }
}
