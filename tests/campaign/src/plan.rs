//! The plan: from a seed to all that is done and all that goes wrong, with times. Pure.

use std::fmt;

use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};
use serde::{Deserialize, Serialize};

use crate::history::Selection;

mod draw;
mod profile;
mod shorten;

pub use shorten::Shortening;

/// Object types of the directory; each is a topic.
pub const TOPICS: [&str; 4] = ["groups/group", "users/user", "mail/domain", "computers/linux"];

/// Shades of objects.
pub const SHADES: [&str; 3] = ["red", "green", "blue"];
/// Objects move between so many places.
pub const PLACES: u64 = 3;

/// What a run aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Everything.
    General,
    /// Twins of attempts that stop and go on, servers that stop: the fence.
    Zombies,
    /// Names that are removed and registered again while late requests are under way.
    Recreate,
    /// Dispatchers that stop, go on and are killed: checkpoints and position.
    Dispatchers,
    /// Prefills asked for again while the API's replicas stop: what may be delivered.
    Rounds,
}

/// How a consumer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// One message at a time.
    Single,
    /// Several at once.
    Batch,
    /// An open stream, as server-sent events or as lines.
    Stream,
}

/// A consumer and what it does besides reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerPlan {
    /// Name of its subscription.
    pub name: String,
    /// How it reads.
    pub reading: Reading,
    /// In order; the first one registers.
    pub actions: Vec<(u64, Action)>,
    /// For its own dice.
    pub seed: u64,
}

/// What a consumer does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Registers, or removes its subscription and registers again.
    Register {
        /// Requested topics, in order.
        topics: Vec<String>,
        /// Does it ask for a prefill?
        prefill: bool,
        /// Time between removal and registration.
        gap_ms: u64,
        /// Are requests of the former life left under way?
        late: bool,
        /// Which objects it selects; `None`: all.
        selection: Option<Selection>,
        /// Is it recorded what it is told of?
        track: bool,
    },
    /// Asks for a prefill again.
    Ask {
        /// As a resync, if it is tracked.
        resync: bool,
        /// With a limit of no removals: such a one is held, and approved.
        brake: bool,
        /// Only to count, if it is tracked.
        dry_run: bool,
    },
    /// Asks for a prefill, cancels it, and asks again.
    Cancel {
        /// So long after it was asked for.
        after_ms: u64,
    },
    /// Wants other topics.
    Topics {
        /// In order.
        topics: Vec<String>,
    },
    /// Asks for a prefill, pauses it, and resumes it.
    PausePrefill {
        /// So long after it was asked for.
        after_ms: u64,
        /// It waits so long, and as long as it takes to be sure that nobody works on it.
        for_ms: u64,
    },
    /// Gets another password.
    Password,
    /// Does not read for a while.
    Pause {
        /// How long.
        ms: u64,
    },
}

/// A change of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When, at the earliest: the event of the one before comes first.
    pub at_ms: u64,
    /// Number of the object.
    pub object: usize,
    /// What happens to it.
    pub kind: Kind,
}

/// An event that NATS does not carry, of no object of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Large {
    /// When, at the earliest.
    pub at_ms: u64,
    /// Topic by number.
    pub topic: usize,
}

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It comes into being.
    Create,
    /// It gets a new value.
    Update,
    /// It gets another DN.
    Move,
    /// It goes.
    Delete,
}

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One of two replicas.
    Api(u8),
    /// One of two.
    Dispatcher(u8),
    /// One of two.
    Worker(u8),
    /// The sweep.
    Controller,
    /// The server.
    Nats,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(n) => write!(f, "api-{n}"),
            Self::Dispatcher(n) => write!(f, "dispatcher-{n}"),
            Self::Worker(n) => write!(f, "worker-{n}"),
            Self::Controller => f.write_str("controller"),
            Self::Nats => f.write_str("nats"),
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// SIGKILL, and a new start after a while.
    Kill {
        /// Whom.
        target: Target,
        /// How long it is away.
        away_ms: u64,
    },
    /// SIGSTOP, and SIGCONT after a while.
    Stop {
        /// Whom.
        target: Target,
        /// How long.
        for_ms: u64,
    },
    /// One of the dispatchers stops; when it goes on, the others are killed.
    Relay {
        /// The one that stops.
        stopped: u8,
        /// How long.
        for_ms: u64,
        /// How long the other one is away.
        away_ms: u64,
    },
    /// The replica of the API that was asked last stops when the next task of a prefill was queued, which is before its
    /// marker. The producer goes on with the other one.
    AtTask {
        /// How long.
        for_ms: u64,
    },
    /// The replica of the API that the producer posts to stops for longer than the producer waits: its event is on the
    /// replica's socket, and newer ones go another way.
    AtPost {
        /// How long.
        for_ms: u64,
    },
    /// SIGTERM, as Kubernetes does it, and a new start after a while.
    Term {
        /// Whom.
        target: Target,
        /// How long it is away.
        away_ms: u64,
    },
    /// All but the server are killed at once, or all.
    All {
        /// Is the server, too?
        nats: bool,
        /// How long they are away.
        away_ms: u64,
    },
    /// The server, or another process, is hit at the moment when a batch is committed: when it was sent, and its answer
    /// has not come.
    AtBatch {
        /// What the batch is of.
        part: Part,
        /// Whom.
        target: Target,
        /// How.
        hit: Hit,
    },
    /// The connection of a process to the server is damaged, while both are well.
    Wire {
        /// Whose.
        target: Target,
        /// How.
        damage: Damage,
        /// After how long it is cut, or goes on.
        for_ms: u64,
    },
    /// The directory's service answers with this status for a while.
    Udm {
        /// HTTP status.
        status: u16,
        /// How long.
        for_ms: u64,
    },
    /// Another pod of the attempt that a consumer's prefill is at, which stops after a while and goes on later.
    Twin {
        /// Index of the consumer.
        consumer: usize,
        /// When it stops, after it has taken the fence: 0 is before it knows that it has.
        stop_after_ms: u64,
        /// How long, at most.
        for_ms: u64,
        /// It goes on so long after another one has completed the attempt, if that comes first.
        after_seal_ms: Option<u64>,
    },
}

/// A part of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Objects.
    Prefill,
    /// Live events.
    Main,
}

/// What happens to a process at a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hit {
    /// It stops for so many milliseconds.
    Stop(u64),
    /// It is killed.
    Kill,
    /// What it sends next is held back and arrives after so many milliseconds; its connection is cut meanwhile.
    Late(u64),
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// It is cut at once.
    Cut,
    /// Answers are swallowed, then it is cut.
    AnswersLost,
    /// Requests are held back, and arrive although it is cut.
    RequestsLate,
    /// It is cut in the middle of the next answers.
    CutInAnswer,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Where it comes from.
    pub seed: u64,
    /// What it aims at.
    pub profile: Profile,
    /// How long faults and changes go on.
    pub length_ms: u64,
    /// Objects at the start: topic by number.
    pub objects: Vec<usize>,
    /// Time that each GET of an object takes: this makes prefills long enough to be hit.
    pub get_delay_ms: u64,
    /// Events that may wait in a dispatcher's memory for one queue; few of them make lanes read the log themselves.
    pub lane_entries: usize,
    /// Dispatchers at once: 2 or 3.
    #[serde(default = "two")]
    pub dispatchers: u8,
    /// Does UDM read the primary? Then events that a prefill surely holds are left out.
    pub reads_primary: bool,
    /// In order.
    pub changes: Vec<Change>,
    /// In order.
    #[serde(default)]
    pub larges: Vec<Large>,
    /// All consumers.
    pub consumers: Vec<ConsumerPlan>,
    /// In order.
    pub faults: Vec<(u64, Fault)>,
}

fn two() -> u8 {
    2
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64, profile: Profile, length_ms: u64) -> Self {
        let rates = profile.rates();
        let mut dice = ChaCha12Rng::seed_from_u64(seed);
        let objects: Vec<usize> = (0..rates.objects).map(|_| draw::topic(&mut dice)).collect();
        let changes = draw::changes(&mut dice, &objects, length_ms, rates.change);
        let mut consumers: Vec<ConsumerPlan> =
            (0..rates.consumers).map(|index| draw::consumer(&mut dice, index, &rates, length_ms)).collect();
        let mut faults = draw::faults(&mut dice, profile, &rates, length_ms);
        let get_delay_ms = dice.random_range(5..25);
        // By turns, so that two seeds in a row show both.
        let reads_primary = !seed.is_multiple_of(2);
        let lane_entries = if seed.is_multiple_of(3) { 5_000 } else { dice.random_range(1..20) };
        // Dice of their own: all else is what the seed gave before there were these.
        let mut dice = ChaCha12Rng::seed_from_u64(!seed);
        consumers.iter_mut().for_each(|consumer| draw::more(&mut dice, consumer, &rates, length_ms));
        let larges = draw::larges(&mut dice, length_ms);
        // Aimed at dispatchers, or with everything else now and then.
        let three = profile == Profile::Dispatchers && seed.is_multiple_of(2) || seed.is_multiple_of(5);
        let dispatchers = if three { 3 } else { 2 };
        faults.iter_mut().for_each(|(_, fault)| draw::among(&mut dice, dispatchers, fault));
        Self {
            seed,
            profile,
            length_ms,
            objects,
            get_delay_ms,
            lane_entries,
            dispatchers,
            reads_primary,
            changes,
            larges,
            consumers,
            faults,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Profile; 5] =
        [Profile::General, Profile::Zombies, Profile::Recreate, Profile::Dispatchers, Profile::Rounds];

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        for profile in ALL {
            let [a, b, c] = [7, 7, 8].map(|seed| Plan::new(seed, profile, 60_000));
            assert_eq!(a, b);
            assert_ne!(a, c);
            assert!(!a.faults.is_empty() && !a.changes.is_empty());
        }
    }

    #[test]
    fn only_what_is_there_is_changed() {
        let plan = Plan::new(3, Profile::General, 120_000);
        let mut alive: std::collections::BTreeSet<usize> = (0..plan.objects.len()).collect();
        for change in &plan.changes {
            match change.kind {
                Kind::Create => assert!(alive.insert(change.object)),
                Kind::Delete => assert!(alive.remove(&change.object)),
                Kind::Update | Kind::Move => assert!(alive.contains(&change.object)),
            }
        }
        assert!(plan.changes.is_sorted_by_key(|change| change.at_ms));
    }

    #[test]
    fn what_is_rare_is_in_each_plan() {
        for profile in ALL {
            let plan = Plan::new(5, profile, 120_000);
            let actions =
                || plan.consumers.iter().flat_map(|consumer| &consumer.actions).map(|(_, action)| action);
            assert!(actions().any(|action| matches!(action, Action::PausePrefill { .. })), "{profile:?}");
            assert!(actions().any(|action| matches!(action, Action::Password)), "{profile:?}");
            assert!(
                !plan.larges.is_empty() && plan.larges.is_sorted_by_key(|large| large.at_ms),
                "{profile:?}"
            );
        }
    }

    #[test]
    fn a_consumer_registers_first() {
        for profile in ALL {
            for consumer in Plan::new(11, profile, 90_000).consumers {
                assert!(matches!(consumer.actions[0].1, Action::Register { .. }), "{consumer:?}");
                assert!(consumer.actions.is_sorted_by_key(|(at, _)| *at));
            }
        }
    }
}
