//! The request for one attempt: what a Job's ConfigMap holds, and what the task queue carries.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Incarnation, RealmTopic, Selection, Subscription, SubscriptionName, prefill::PrefillMode,
    resync::MaxRemovals,
};

/// All that an attempt needs to know about its subscription. Unknown keys are errors: the file may be written by
/// a newer version, and half-understood requests fill queues wrongly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefillTask {
    /// The subscription.
    pub subscription: SubscriptionName,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Round of the prefill, from 1.
    pub round: u32,
    /// Number of the attempt, from 1; grows over all rounds.
    pub attempt: u32,
    /// What to read, in this order.
    pub realms_topics: Vec<RealmTopic>,
    /// Which objects of them, and what of those; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// Is it recorded what the consumer is told of?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub track: bool,
    /// What is told.
    #[serde(default, skip_serializing_if = "PrefillMode::is_prefill")]
    pub mode: PrefillMode,
    /// How many removals a resync may tell without being approved; `None`: as the installation has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_removals: Option<MaxRemovals>,
    /// Everything is read and counted, and nothing is written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

impl PrefillTask {
    /// The task of the current attempt of a subscription.
    #[must_use]
    pub fn of(subscription: &Subscription) -> Self {
        Self {
            subscription: subscription.name.clone(),
            incarnation: subscription.incarnation,
            round: subscription.prefill.round,
            attempt: subscription.prefill.attempt,
            realms_topics: subscription.realms_topics.clone(),
            selection: subscription.selection.clone(),
            track: subscription.track,
            mode: subscription.prefill.mode,
            max_removals: subscription.prefill.max_removals.or(subscription.max_removals),
            dry_run: subscription.prefill.dry_run,
        }
    }
}
