//! Memory for answers: what a client was sent and has not taken yet holds its bytes, and its place, until it has.
//!
//! What an answer needs is not known before it was read, so there are two looks: whether there is room before something
//! is read, and whether it fits after that.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use model::SubscriptionName;

use crate::error::ApiError;

/// For all answers of one process, and of one subscription: at least the largest batch.
const MOST: usize = 64 << 20;
const OF_SUBSCRIPTION: usize = 24 << 20;
/// For answers to those who did not log in.
const OF_STRANGERS: usize = 4 << 20;
/// Smaller answers are not counted: connections are.
pub(crate) const SMALL: usize = 4 * 1024;

/// Whose answer it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner<'a> {
    Stranger,
    Role,
    Subscription(&'a SubscriptionName),
}

/// Bytes of answers that are being sent.
#[derive(Clone, Default)]
pub(crate) struct Answers(Arc<Mutex<Sent>>);

#[derive(Default)]
struct Sent {
    all: usize,
    of_strangers: usize,
    by_name: HashMap<SubscriptionName, usize>,
}

/// Bytes of one answer, until this is dropped.
pub(crate) struct Held {
    answers: Answers,
    owner: HeldBy,
    bytes: usize,
}

/// Says of an answer that it holds its own bytes.
#[derive(Clone, Copy)]
pub(crate) struct HoldsItsOwn;

enum HeldBy {
    Stranger,
    Role,
    Subscription(SubscriptionName),
}

impl Answers {
    /// Is there room for another answer? To be asked before something is read for it.
    pub(crate) fn room(&self, owner: Owner<'_>) -> Result<(), ApiError> {
        self.sent().fits(owner, 1)
    }

    /// Holds an answer's bytes, if they fit.
    pub(crate) fn hold(&self, owner: Owner<'_>, bytes: usize) -> Result<Held, ApiError> {
        self.sent().fits(owner, bytes)?;
        Ok(self.hold_anyway(owner, bytes))
    }

    /// Holds the bytes of what can't be given back any more.
    pub(crate) fn hold_anyway(&self, owner: Owner<'_>, bytes: usize) -> Held {
        let mut sent = self.sent();
        sent.all += bytes;
        let owner = match owner {
            Owner::Stranger => {
                sent.of_strangers += bytes;
                HeldBy::Stranger
            }
            Owner::Role => HeldBy::Role,
            Owner::Subscription(name) => {
                *sent.by_name.entry(name.clone()).or_default() += bytes;
                HeldBy::Subscription(name.clone())
            }
        };
        Held { answers: self.clone(), owner, bytes }
    }

    /// Bytes that are held.
    pub(crate) fn bytes(&self) -> usize {
        self.sent().all
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sent {
    /// One answer fits always where nothing else is held, however large it is.
    fn fits(&self, owner: Owner<'_>, bytes: usize) -> Result<(), ApiError> {
        let fits = |held: usize, most: usize| held == 0 || held.saturating_add(bytes) <= most;
        let (own, most) = match owner {
            Owner::Stranger => (self.of_strangers, OF_STRANGERS),
            Owner::Role => (0, MOST),
            Owner::Subscription(name) => {
                (self.by_name.get(name).copied().unwrap_or_default(), OF_SUBSCRIPTION)
            }
        };
        if !fits(own, most) {
            return Err(ApiError::TooMany {
                detail: format!(
                    "{own} bytes of answers were sent and not read: read them, or close their connections"
                ),
                wait: Duration::from_secs(2),
            });
        }
        if !fits(self.all, MOST) {
            return Err(ApiError::Unavailable {
                detail: "Too much is being answered at once; try again",
                cause: format!("{} bytes of answers were not taken yet", self.all),
            });
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut sent = self.answers.sent();
        sent.all -= self.bytes;
        match &self.owner {
            HeldBy::Stranger => sent.of_strangers -= self.bytes,
            HeldBy::Role => {}
            HeldBy::Subscription(name) => match sent.by_name.get_mut(name) {
                Some(held) if *held > self.bytes => *held -= self.bytes,
                _ => {
                    sent.by_name.remove(name);
                }
            },
        }
    }
}

/// Bytes that keep something until the last of them is written.
pub(crate) fn keep<T: Send + 'static>(bytes: Bytes, with: T) -> Bytes {
    struct Kept<T> {
        bytes: Bytes,
        _with: T,
    }
    impl<T> AsRef<[u8]> for Kept<T> {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Kept { bytes, _with: with })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let answers = Answers::default();
        let names: Vec<SubscriptionName> =
            ["mail", "chat", "wiki", "task"].map(|name| name.parse().unwrap()).into();
        let of = |n: usize| Owner::Subscription(&names[n]);
        let huge = answers.hold(of(0), OF_SUBSCRIPTION + 1);
        assert!(huge.is_ok(), "one is always sent");
        assert!(matches!(answers.room(of(0)), Err(ApiError::TooMany { .. })));
        let others = [answers.hold(of(1), OF_SUBSCRIPTION), answers.hold(of(2), 10)];
        assert!(others.iter().all(Result::is_ok), "others go on");
        let refused = answers.hold(of(3), OF_SUBSCRIPTION);
        assert!(matches!(refused, Err(ApiError::Unavailable { .. })), "all together");
        let public = answers.hold(Owner::Stranger, OF_STRANGERS).unwrap();
        assert!(matches!(answers.room(Owner::Stranger), Err(ApiError::TooMany { .. })));
        assert!(answers.hold(Owner::Role, 1 << 20).is_ok());
        let bytes = keep(Bytes::from_static(b"answer"), (huge, others, public));
        let part = bytes.slice(1..);
        drop(bytes);
        assert!(answers.bytes() > OF_SUBSCRIPTION, "a part of it is still there");
        drop(part);
        assert_eq!(answers.bytes(), 0);
        assert!(answers.sent().by_name.is_empty() && answers.sent().of_strangers == 0);
    }
}
