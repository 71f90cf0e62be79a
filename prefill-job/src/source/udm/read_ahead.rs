//! Room for objects that were read, or are being read, while one before them is not there yet.
//!
//! Their number is bounded by the window; this bounds their bytes. Whoever has no room waits, and reads no further:
//! the connection fills up, and UDM waits. The object whose turn it is never waits for room; that it does not wait for
//! a place either is the gate's part. A huge object takes a part of the room only, and waits for its turn with that.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Bytes of one unit of room. An object has one unit for nothing.
const UNIT: usize = 4 * 1024;
/// Room for all objects but the one whose turn it is: 8 MiB.
const UNITS: usize = 2048;
/// The share of the room that one object may take before its turn.
const SHARE: usize = 4;

/// Room for the objects of a list.
#[derive(Debug)]
pub(super) struct ReadAhead {
    free: Arc<Semaphore>,
    /// Units that one object may take.
    each_max: usize,
    /// Whose turn it is.
    turn: watch::Sender<u64>,
}

/// The room that an object takes; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    free: Arc<Semaphore>,
    turn: watch::Receiver<u64>,
    number: u64,
    held: Option<OwnedSemaphorePermit>,
    units: usize,
    units_max: usize,
}

impl ReadAhead {
    pub fn new() -> Self {
        Self::of(UNITS)
    }

    pub(super) fn of(units: usize) -> Self {
        let each_max = units.div_ceil(SHARE);
        Self { free: Arc::new(Semaphore::new(units)), each_max, turn: watch::Sender::new(0) }
    }

    /// A reservation for an object, by its place in the list.
    pub fn reservation(&self, number: u64) -> Reservation {
        let (free, turn) = (Arc::clone(&self.free), self.turn.subscribe());
        Reservation { free, turn, number, held: None, units: 1, units_max: self.each_max }
    }

    /// It is this object's turn: those before it are gone.
    pub fn turn(&self, number: u64) {
        self.turn.send_replace(number);
    }
}

impl Reservation {
    /// Waits until there is room for so many bytes in all, or it is this object's turn.
    pub async fn hold(&mut self, bytes: usize) {
        let more = bytes.div_ceil(UNIT).saturating_sub(self.units);
        if more == 0 {
            return;
        }
        let number = self.number;
        let turn = self.turn.wait_for(|turn| *turn >= number);
        if self.units + more > self.units_max {
            // The sender lives as long as anybody reads.
            _ = turn.await;
            return;
        }
        let room = Arc::clone(&self.free).acquire_many_owned(u32::try_from(more).unwrap_or(u32::MAX));
        tokio::select! {
            biased;
            permit = room => match (permit, &mut self.held) {
                (Ok(permit), Some(held)) => held.merge(permit),
                (Ok(permit), held) => *held = Some(permit),
                (Err(_), _) => {}
            },
            _ = turn => {}
        }
        self.units += more;
    }

    /// The object's place in the list.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Gives back what was taken, to begin again.
    pub fn clear(&mut self) {
        self.held = None;
        self.units = 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn holds(reservation: &mut Reservation, bytes: usize) -> bool {
        tokio::time::timeout(Duration::from_millis(1), reservation.hold(bytes)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_bounded_but_for_the_one_whose_turn_it_is() {
        let room = ReadAhead { each_max: 4, ..ReadAhead::of(4) };
        let [mut first, mut second, mut third] = [0, 1, 2].map(|number| room.reservation(number));
        room.turn(0);
        assert!(holds(&mut third, UNIT).await, "small ones are free");
        assert!(holds(&mut second, 4 * UNIT).await);
        assert!(holds(&mut third, 2 * UNIT).await);
        assert!(!holds(&mut third, 3 * UNIT).await, "all room is taken");
        assert!(holds(&mut first, 1000 * UNIT).await, "its turn: it never waits");
        drop(first);
        assert!(!holds(&mut second, 9 * UNIT).await);
        room.turn(1);
        assert!(holds(&mut second, 9 * UNIT).await);
        drop(second);
        assert!(holds(&mut third, 4 * UNIT).await, "what was taken is given back");
        third.clear();
        assert_eq!(room.free.available_permits(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_huge_object_leaves_room_for_others_until_its_turn() {
        let room = ReadAhead::of(8);
        let [mut huge, mut other] = [1, 2].map(|number| room.reservation(number));
        assert!(holds(&mut huge, 2 * UNIT).await);
        assert!(!holds(&mut huge, 9 * UNIT).await);
        assert!(holds(&mut other, 2 * UNIT).await);
        room.turn(1);
        assert!(holds(&mut huge, 9 * UNIT).await);
    }
}
