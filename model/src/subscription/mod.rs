//! The entry `SUBSCRIPTIONS.<name>`: all that is compared together, in one value.

mod registration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Incarnation, Prefill, PrefillState, RealmTopic, Reason, Selection, SubscriptionName, Timestamp,
    fence::is_zero,
    limits::{GivenUp, Lost},
    prefill::{PrefillMode, PrefillOrder, history},
    resync::MaxRemovals,
    shorten,
};
pub use registration::{Registration, RegistrationOutcome, compare_registration};

/// Longest sentence that an entry keeps, in bytes: webhooks write kilobytes, and every component reads every entry.
const MESSAGE_MAX: usize = 1000;

/// Value of the key `<name>` in the bucket `SUBSCRIPTIONS`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // tombstones are few
pub enum Entry {
    /// The name is taken.
    Subscription(Subscription),
    /// The name was used and is free.
    Tombstone(Tombstone),
}

/// What remains of a removed subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// First number that a stream of this name may use: above all that it ever had, so that a late acknowledgement
    /// or write of a former incarnation hits nothing.
    pub next_sequence: u64,
}

/// One consumer's registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its name.
    pub name: SubscriptionName,
    /// This life of the name.
    pub incarnation: Incarnation,
    /// Requested topics, in the order of the request.
    pub realms_topics: Vec<RealmTopic>,
    /// How often the topics were changed.
    #[serde(default)]
    pub topics_version: u32,
    /// Was a prefill asked for at registration?
    pub request_prefill: bool,
    /// Which objects of the topics, and what of them; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// Is it recorded what the consumer is told of ([`KnownObjects`](crate::resync::KnownObjects))? From the registration on,
    /// or never: what was told before is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub track: bool,
    /// How many removals a resync may tell without being approved; `None`: as the installation has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_removals: Option<MaxRemovals>,
    /// Is it usable?
    pub lifecycle: Lifecycle,
    /// First sequence of the queue's stream.
    pub first_sequence: u64,
    /// First sequence that the next incarnation may use; known from the moment before the stream is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_sequence: Option<u64>,
    /// When the name was reserved.
    pub created: Timestamp,
    /// The prefill.
    pub prefill: Prefill,
    /// Live messages that were removed because they waited longer than the operator allows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub swept: u64,
    /// The queue was given up: written before its stream is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<GivenUp>,
    /// The queue was not found: written before the events that it did not get may leave the event log. It counts also
    /// when the stream comes back, since events are missing in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
}

/// Where a subscription is between its registration and its removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// The name is reserved; queue, credentials, Job or marker may be missing.
    Registering,
    /// Everything exists.
    Ready,
    /// Being removed.
    Deleting,
}

impl Subscription {
    /// A new reservation. Its prefill is `pending`, or `done` at once when none was asked for.
    #[must_use]
    pub fn reserve(
        registration: Registration,
        incarnation: Incarnation,
        first_sequence: u64,
        now: Timestamp,
    ) -> Self {
        let number = u32::from(registration.request_prefill);
        let state = if registration.request_prefill { PrefillState::Pending } else { PrefillState::Done };
        Self {
            name: registration.name,
            incarnation,
            realms_topics: registration.realms_topics,
            topics_version: 0,
            request_prefill: registration.request_prefill,
            selection: registration.selection,
            track: registration.track,
            max_removals: registration.max_removals,
            lifecycle: Lifecycle::Registering,
            first_sequence,
            next_sequence: None,
            created: now.clone(),
            prefill: Prefill {
                state,
                mode: PrefillMode::Prefill,
                max_removals: None,
                dry_run: false,
                round: number,
                boundary: None,
                attempt: number,
                asked: registration.request_prefill.then(|| now.clone()),
                since: now,
                reason: None,
                message: None,
                paused: false,
                attempts: Vec::new(),
            },
            swept: 0,
            given_up: None,
            lost: None,
        }
    }

    /// The same subscription with its prefill in another state, or `None` if nothing would change.
    /// `since` moves only when the state does.
    #[must_use]
    pub fn with_prefill_state(
        &self,
        state: PrefillState,
        reason: Option<Reason>,
        message: Option<String>,
        now: Timestamp,
    ) -> Option<Self> {
        let mut next = self.clone();
        next.prefill.state = state;
        next.prefill.reason = reason;
        next.prefill.message = message.map(|text| shorten(&text, MESSAGE_MAX));
        next.prefill.paused &= !matches!(state, PrefillState::Done | PrefillState::Failed);
        if next == *self {
            return None;
        }
        next.prefill.attempts = history::after(&self.prefill, &next.prefill, &now);
        if state != self.prefill.state {
            next.prefill.since = now;
        }
        Some(next)
    }

    /// The same subscription with what the seal tells of the current attempt, if that has ended.
    #[must_use]
    pub fn with_objects(mut self, objects: u64) -> Self {
        let attempt = self.prefill.attempt;
        if let Some(last) = self.prefill.attempts.last_mut().filter(|last| last.attempt == attempt) {
            last.objects = Some(objects);
        }
        self
    }

    /// The same subscription with its prefill paused or resumed, or `None` if it is so already, or if none is pending
    /// or running. The worker or controller writes the reason `Paused` once the attempt has stopped; resuming clears it.
    #[must_use]
    pub fn with_paused(&self, paused: bool) -> Option<Self> {
        (self.awaits_prefill() && self.prefill.paused != paused).then(|| {
            let mut next = self.clone();
            next.prefill.paused = paused;
            if self.prefill.has_stopped() {
                (next.prefill.reason, next.prefill.message) = (None, None);
            }
            next
        })
    }

    /// The same subscription after its marker was seen at `seq`, or `None` if the marker is of another
    /// incarnation or round, or the boundary is known already.
    #[must_use]
    pub fn with_boundary(&self, incarnation: Incarnation, round: u32, seq: u64) -> Option<Self> {
        if self.incarnation != incarnation || self.prefill.round != round || self.prefill.boundary.is_some() {
            return None;
        }
        let mut next = self.clone();
        next.prefill.boundary = Some(seq);
        Some(next)
    }

    /// The same subscription after its prefill was asked for again: a failed one gets another attempt of the *same*
    /// round, with the same boundary; a done one a new round, whose boundary the next marker tells. `None` while one
    /// is pending or running. A failed one stays what it was, a new round tells what exists.
    #[must_use]
    pub fn with_prefill_again(&self, now: Timestamp) -> Option<Self> {
        self.with_prefill_of(None, now)
    }

    /// As [`with_prefill_again`](Self::with_prefill_again); `mode` is what it shall tell, if that is said.
    #[must_use]
    pub fn with_prefill_of(&self, mode: Option<PrefillMode>, now: Timestamp) -> Option<Self> {
        self.with_prefill_ordered(PrefillOrder { mode, ..PrefillOrder::default() }, now)
    }

    /// As [`with_prefill_again`](Self::with_prefill_again), with all that may be asked for. Only a prefill that is done
    /// can be followed by one that only counts: the consumer goes on reading meanwhile. Whatever follows such a one is a
    /// new round, since live events of its own round were read without waiting for it.
    #[must_use]
    pub fn with_prefill_ordered(&self, order: PrefillOrder, now: Timestamp) -> Option<Self> {
        let mut next = self.clone();
        match self.prefill.state {
            PrefillState::Pending | PrefillState::Running => return None,
            PrefillState::Failed if !self.prefill.dry_run => {
                next.prefill.max_removals = order.max_removals.or(next.prefill.max_removals);
            }
            PrefillState::Failed | PrefillState::Done => {
                next.prefill.round += 1;
                next.prefill.boundary = None;
                next.prefill.mode = PrefillMode::default();
                next.prefill.max_removals = order.max_removals;
                next.prefill.dry_run = order.dry_run;
            }
        }
        if order.dry_run && !next.prefill.dry_run {
            return None;
        }
        next.prefill.mode = order.mode.unwrap_or(next.prefill.mode);
        next.prefill.attempt += 1;
        next.prefill.asked = Some(now.clone());
        next.prefill.state = PrefillState::Pending;
        next.prefill.since = now;
        next.prefill.reason = None;
        next.prefill.message = None;
        Some(next)
    }

    /// The same subscription with other topics, or `None` if they are the same. The boundary becomes unknown: only
    /// the next marker puts the new topics into effect, and until one did it is sent again.
    #[must_use]
    pub fn with_topics(&self, realms_topics: &[RealmTopic]) -> Option<Self> {
        (self.realms_topics != realms_topics).then(|| {
            let mut next = self.clone();
            next.realms_topics = realms_topics.to_vec();
            next.topics_version += 1;
            next.prefill.boundary = None;
            next
        })
    }

    /// The same subscription after its queue was given up, or `None` if that is recorded already, or if it is not
    /// ready: what is being registered or removed is finished by those who do that. `next_sequence` is the first
    /// number that the next incarnation may use, where the stream is still there to tell it.
    #[must_use]
    pub fn with_given_up(&self, given_up: &GivenUp, next_sequence: Option<u64>) -> Option<Self> {
        (self.lifecycle == Lifecycle::Ready && !self.is_broken()).then(|| {
            let mut next = self.clone();
            next.given_up = Some(given_up.clone());
            next.next_sequence = next.next_sequence.max(next_sequence);
            next
        })
    }

    /// The same subscription after its queue was not found, or `None` if it is broken already, or if it is not ready:
    /// one that is being registered has no queue yet, and one that is being removed has none any more.
    #[must_use]
    pub fn with_lost(&self, lost: &Lost) -> Option<Self> {
        (self.lifecycle == Lifecycle::Ready && !self.is_broken()).then(|| {
            let mut next = self.clone();
            next.lost = Some(lost.clone());
            next
        })
    }

    /// Are events missing in its queue for good? It must be removed and registered again.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.given_up.is_some() || self.lost.is_some()
    }

    /// The same subscription after that many more of its live messages were removed by age.
    #[must_use]
    pub fn with_swept(&self, more: u64) -> Self {
        Self { swept: self.swept + more, ..self.clone() }
    }

    /// Is a prefill asked for, or under way?
    #[must_use]
    pub fn awaits_prefill(&self) -> bool {
        matches!(self.prefill.state, PrefillState::Pending | PrefillState::Running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefill::PrefillTask;
    use uuid::Uuid;

    fn now(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn subscription(prefill: bool) -> Subscription {
        let registration = Registration {
            request_prefill: prefill,
            ..Registration::new(
                "mail".parse().unwrap(),
                vec![RealmTopic { realm: "udm".into(), topic: "users/user".into() }],
            )
        };
        Subscription::reserve(registration, Incarnation(Uuid::from_u128(7)), 5, now("2026-01-01T00:00:00"))
    }

    #[test]
    fn without_prefill_it_is_done_from_the_start() {
        let plain = subscription(false).prefill;
        assert_eq!((plain.state, plain.round, plain.attempt), (PrefillState::Done, 0, 0));
        let asked = subscription(true).prefill;
        assert_eq!((asked.state, asked.round, asked.attempt), (PrefillState::Pending, 1, 1));
    }

    #[test]
    fn entries_survive_serialisation() {
        let entry = Entry::Subscription(subscription(true));
        let json = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
    }

    #[test]
    fn the_boundary_is_taken_once_and_only_from_its_own_marker() {
        let s = subscription(true);
        let set = s.with_boundary(s.incarnation, 1, 9).unwrap();
        assert_eq!(set.prefill.boundary, Some(9));
        assert_eq!(set.with_boundary(s.incarnation, 1, 10), None);
        assert_eq!(s.with_boundary(s.incarnation, 2, 9), None);
        assert_eq!(s.with_boundary(Incarnation(Uuid::from_u128(8)), 1, 9), None);
    }

    #[test]
    fn a_prefill_is_asked_for_again() {
        let later = now("2026-01-03T00:00:00");
        let of = |state, reason| {
            let s = subscription(true);
            let s = s.with_boundary(s.incarnation, 1, 9).unwrap();
            s.with_prefill_state(state, reason, None, later.clone()).unwrap_or(s)
        };
        for (found, expected) in [
            (of(PrefillState::Pending, None), None),
            (of(PrefillState::Running, None), None),
            (of(PrefillState::Failed, Some(Reason::ImagePull)), Some((1, 2, Some(9)))),
            (of(PrefillState::Done, None), Some((2, 2, None))),
            (subscription(false), Some((1, 1, None))),
        ] {
            let again = found.with_prefill_again(later.clone()).map(|s| s.prefill);
            assert_eq!(again.as_ref().map(|p| (p.round, p.attempt, p.boundary)), expected, "{found:?}");
            assert!(again.is_none_or(|p| p.state == PrefillState::Pending && p.reason.is_none()));
        }
    }

    #[test]
    fn a_resync_is_one_until_it_has_succeeded() {
        let later = now("2026-01-03T00:00:00");
        let s = subscription(false);
        let again = |s: &Subscription, mode| s.with_prefill_of(mode, later.clone()).unwrap();
        let ended = |s: &Subscription, state| s.with_prefill_state(state, None, None, later.clone()).unwrap();
        let resync = again(&s, Some(PrefillMode::Resync));
        assert_eq!((resync.prefill.mode, resync.prefill.round), (PrefillMode::Resync, 1));
        let failed = ended(&resync, PrefillState::Failed);
        assert_eq!(again(&failed, None).prefill.mode, PrefillMode::Resync);
        assert_eq!(again(&failed, Some(PrefillMode::Prefill)).prefill.mode, PrefillMode::Prefill);
        let done = ended(&resync, PrefillState::Done);
        assert_eq!(again(&done, None).prefill.mode, PrefillMode::Prefill);
        assert_eq!(resync.with_prefill_of(Some(PrefillMode::Prefill), later), None);
    }

    #[test]
    fn what_only_counts_follows_what_is_done_and_is_followed_by_a_new_round() {
        let later = now("2026-01-03T00:00:00");
        let dry = PrefillOrder { mode: Some(PrefillMode::Resync), dry_run: true, ..PrefillOrder::default() };
        let ended = |s: &Subscription, state| s.with_prefill_state(state, None, None, later.clone()).unwrap();
        let failed = ended(&subscription(true), PrefillState::Failed);
        assert_eq!(failed.with_prefill_ordered(dry, later.clone()), None);
        let counting = subscription(false).with_prefill_ordered(dry, later.clone()).unwrap();
        assert!(counting.prefill.dry_run && counting.prefill.is_open() && PrefillTask::of(&counting).dry_run);
        for state in [PrefillState::Done, PrefillState::Failed] {
            let next = ended(&counting, state).with_prefill_again(later.clone()).unwrap().prefill;
            assert_eq!((next.round, next.boundary, next.dry_run), (2, None, false), "{state:?}");
            assert!(!next.is_open());
        }
    }

    #[test]
    fn the_limit_of_removals_is_that_of_the_round_or_of_the_registration() {
        let later = now("2026-01-03T00:00:00");
        let of = |s: &Subscription| PrefillTask::of(s).max_removals;
        let s = Subscription { max_removals: Some(MaxRemovals::Objects(7)), ..subscription(false) };
        let order = PrefillOrder { max_removals: Some(MaxRemovals::Objects(9)), ..PrefillOrder::default() };
        let asked = s.with_prefill_ordered(order, later.clone()).unwrap();
        assert_eq!((of(&s), of(&asked)), (Some(MaxRemovals::Objects(7)), Some(MaxRemovals::Objects(9))));
        let failed = asked.with_prefill_state(PrefillState::Failed, None, None, later.clone()).unwrap();
        assert_eq!(of(&failed.with_prefill_again(later.clone()).unwrap()), Some(MaxRemovals::Objects(9)));
        let done = asked.with_prefill_state(PrefillState::Done, None, None, later.clone()).unwrap();
        assert_eq!(of(&done.with_prefill_again(later).unwrap()), Some(MaxRemovals::Objects(7)));
    }

    #[test]
    fn only_a_prefill_that_has_not_ended_is_paused() {
        let s = subscription(true);
        let paused = s.with_paused(true).unwrap();
        assert_eq!((paused.with_paused(true), s.with_paused(false)), (None, None));
        assert_eq!(paused.with_paused(false).as_ref(), Some(&s));
        // What is said of the pause ends with it; what is said of anything else does not.
        for (reason, stopped, kept) in [
            (Reason::Paused, true, None),
            (Reason::SourceUnavailable, false, Some(Reason::SourceUnavailable)),
        ] {
            let why = (Some(reason), Some("why".to_owned()));
            let said = paused.with_prefill_state(s.prefill.state, why.0, why.1, s.created.clone()).unwrap();
            assert_eq!(said.prefill.has_stopped(), stopped, "{reason}");
            let resumed = said.with_paused(false).unwrap().prefill;
            assert_eq!(
                (resumed.paused, resumed.reason, resumed.message.is_some()),
                (false, kept, kept.is_some())
            );
        }
        let later = now("2026-01-02T00:00:00");
        let failed = paused.with_prefill_state(PrefillState::Failed, None, None, later.clone()).unwrap();
        assert!(!failed.prefill.paused && failed.with_paused(true).is_none());
        assert_eq!(subscription(false).with_paused(true), None);
    }

    #[test]
    fn other_topics_wait_for_a_marker() {
        let s = subscription(true);
        let s = s.with_boundary(s.incarnation, 1, 9).unwrap();
        assert_eq!(s.with_topics(&s.realms_topics), None);
        let changed = s.with_topics(&[]).unwrap();
        assert_eq!((changed.prefill.boundary, changed.prefill.round), (None, 1));
    }

    #[test]
    fn a_queue_is_given_up_once_and_only_of_a_subscription_that_is_ready() {
        let given_up = GivenUp {
            at: now("2026-01-02T00:00:00"),
            limit: crate::limits::Limit::Bytes,
            live: 3,
            prefill: 0,
        };
        let ready = Subscription { lifecycle: Lifecycle::Ready, ..subscription(false) };
        let done = ready.with_given_up(&given_up, Some(77)).unwrap();
        assert_eq!((done.given_up.as_ref(), done.next_sequence), (Some(&given_up), Some(77)));
        assert_eq!(done.with_given_up(&given_up, None), None);
        for lifecycle in [Lifecycle::Registering, Lifecycle::Deleting] {
            let other = Subscription { lifecycle, ..ready.clone() };
            assert_eq!(other.with_given_up(&given_up, Some(77)), None);
        }
        let json = serde_json::to_string(&Entry::Subscription(done.with_swept(5))).unwrap();
        assert!(json.contains(r#""swept":5"#) && json.contains(r#""limit":"bytes""#), "{json}");
    }

    #[test]
    fn a_loss_is_recorded_once_and_only_of_a_subscription_that_is_ready() {
        let lost = Lost { at: now("2026-01-02T00:00:00"), incoming_seq: 9 };
        let ready = Subscription { lifecycle: Lifecycle::Ready, ..subscription(false) };
        let recorded = ready.with_lost(&lost).unwrap();
        assert!(recorded.is_broken() && !ready.is_broken());
        assert_eq!((recorded.lost.as_ref(), recorded.with_lost(&lost)), (Some(&lost), None));
        for lifecycle in [Lifecycle::Registering, Lifecycle::Deleting] {
            assert_eq!(Subscription { lifecycle, ..ready.clone() }.with_lost(&lost), None);
        }
        let entry = Entry::Subscription(recorded);
        let json = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
    }

    #[test]
    fn since_moves_only_with_the_state() {
        let s = subscription(true);
        let later = now("2026-01-02T00:00:00");
        let waits =
            s.with_prefill_state(PrefillState::Pending, Some(Reason::Queued), None, later.clone()).unwrap();
        assert_eq!(waits.prefill.since, s.prefill.since);
        assert_eq!(waits.with_prefill_state(PrefillState::Pending, Some(Reason::Queued), None, later), None);
    }
}
