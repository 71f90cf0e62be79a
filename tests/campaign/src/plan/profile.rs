//! What the profiles aim at: rates and targets.

use super::{Profile, Target};

/// Rates of a profile, in milliseconds between two of a kind.
pub(super) struct Rates {
    pub objects: usize,
    pub change: u64,
    pub fault: u64,
    pub register: u64,
    pub ask: u64,
    pub consumers: usize,
}

impl Profile {
    pub(super) fn rates(self) -> Rates {
        // A consumer reads some ten messages a second on a busy machine: it has to keep up with the changes, or prefills
        // are asked for again before anybody has read them.
        let general =
            Rates { objects: 150, change: 150, fault: 2200, register: 30_000, ask: 18_000, consumers: 6 };
        match self {
            Self::General => general,
            Self::Zombies => Rates { objects: 120, change: 500, fault: 1800, ask: 14_000, ..general },
            Self::Recreate => Rates { objects: 40, register: 8_000, ask: 40_000, ..general },
            Self::Dispatchers => Rates { objects: 40, change: 40, fault: 1200, ask: 60_000, ..general },
            Self::Rounds => Rates { objects: 60, change: 250, ask: 7_000, ..general },
        }
    }

    /// What is hit how often.
    pub(super) fn targets(self) -> &'static [(Target, u32)] {
        use Target::{Api, Controller, Dispatcher, Nats, Worker};
        match self {
            Self::General => &[
                (Api(0), 3),
                (Api(1), 3),
                (Dispatcher(0), 3),
                (Dispatcher(1), 3),
                (Worker(0), 3),
                (Worker(1), 3),
                (Controller, 1),
                (Nats, 3),
            ],
            Self::Zombies => &[(Worker(0), 3), (Worker(1), 3), (Nats, 3), (Dispatcher(0), 1)],
            Self::Recreate => &[(Api(0), 5), (Api(1), 5), (Worker(0), 2), (Dispatcher(0), 1), (Nats, 1)],
            Self::Dispatchers => &[(Dispatcher(0), 6), (Dispatcher(1), 6), (Nats, 2)],
            // After a kill of the server the replicas' views of the entries lag.
            Self::Rounds => {
                &[(Api(0), 4), (Api(1), 4), (Worker(0), 2), (Worker(1), 2), (Dispatcher(0), 1), (Nats, 5)]
            }
        }
    }

    /// Of a hundred faults so many are relays of the dispatchers.
    pub(super) fn relays(self) -> u32 {
        match self {
            Self::Dispatchers => 40,
            Self::General => 5,
            Self::Zombies | Self::Recreate | Self::Rounds => 0,
        }
    }

    /// Of a hundred faults so many stop a replica at a task.
    pub(super) fn at_tasks(self) -> u32 {
        match self {
            Self::Rounds => 30,
            Self::General | Self::Recreate => 5,
            Self::Zombies | Self::Dispatchers => 0,
        }
    }

    /// Of a hundred faults so many stop the producer's replica.
    pub(super) fn at_posts(self) -> u32 {
        match self {
            Self::General | Self::Dispatchers => 4,
            Self::Rounds => 12,
            Self::Zombies | Self::Recreate => 0,
        }
    }

    /// Of a hundred faults so many wait for a batch.
    pub(super) fn at_batches(self) -> u32 {
        match self {
            Self::General => 10,
            // Of those that are no twins.
            Self::Zombies => 50,
            Self::Dispatchers => 20,
            Self::Recreate | Self::Rounds => 5,
        }
    }

    /// Of a hundred of the rest so many damage a connection.
    pub(super) fn wires(self) -> u32 {
        match self {
            Self::General | Self::Dispatchers | Self::Rounds => 30,
            Self::Zombies | Self::Recreate => 20,
        }
    }

    /// Of a hundred faults so many are twins.
    pub(super) fn twins(self) -> u32 {
        match self {
            Self::General => 20,
            Self::Zombies => 60,
            Self::Recreate => 15,
            Self::Dispatchers => 0,
            Self::Rounds => 10,
        }
    }
}
