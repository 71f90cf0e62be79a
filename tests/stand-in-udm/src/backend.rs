//! Backends: the processes (pods) that serve, one of which each connection belongs to, as behind a Service.
//!
//! How long an object takes: a part that many requests spend side by side (LDAP, threads), and a part that a process
//! spends for one request at a time (Python). The more requests are in a process, the longer the second part: threads
//! get in each other's way. So there is a best number of requests at once, and more than that hurt.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{RwLock, Semaphore};
use tokio::time::{Instant, sleep_until};

/// One process.
#[derive(Debug)]
pub(crate) struct Backend {
    /// UDM is one event loop: whoever writes holds up everybody.
    pub event_loop: RwLock<()>,
    threads: Semaphore,
    threads_max: usize,
    inside: AtomicUsize,
    /// Until when its one processor is taken.
    taken_until: Mutex<Instant>,
}

/// How long an object takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    /// Side by side with others.
    pub delay: Duration,
    /// One object at a time.
    pub serial: Duration,
    /// Percent by which the serial part grows for each other request in the process.
    pub crowding_percent: u32,
}

impl Work {
    /// The serial part when so many others are in the process.
    fn serial_among(self, others: usize) -> Duration {
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        self.serial * (100 + self.crowding_percent.saturating_mul(others)) / 100
    }
}

impl Backend {
    pub fn new(threads: usize) -> Self {
        Self {
            event_loop: RwLock::default(),
            threads: Semaphore::new(threads.max(1)),
            threads_max: threads.max(1),
            inside: AtomicUsize::new(0),
            taken_until: Mutex::new(Instant::now()),
        }
    }

    /// Takes the time of one object, after `before`.
    pub async fn work(&self, work: Work, before: impl Future<Output = ()>) {
        let _inside = Inside::of(&self.inside);
        let _thread = self.threads.acquire().await;
        before.await;
        let others = self.inside.load(Ordering::Relaxed).min(self.threads_max).saturating_sub(1);
        let serial = work.serial_among(others);
        if work.delay + serial == Duration::ZERO {
            return;
        }
        let done = {
            let mut until = self.taken_until.lock().unwrap_or_else(PoisonError::into_inner);
            *until = (*until).max(Instant::now()) + serial;
            *until
        };
        sleep_until(done + work.delay).await;
    }
}

struct Inside<'a>(&'a AtomicUsize);

impl<'a> Inside<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's number: they take turns with the backends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Connection(pub usize);

/// Counts connections.
#[derive(Debug)]
pub(crate) struct Counting {
    listener: TcpListener,
    next: usize,
}

impl Counting {
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, next: 0 }
    }
}

impl Listener for Counting {
    type Io = TcpStream;
    type Addr = Connection;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, _) = Listener::accept(&mut self.listener).await;
        // Answers are small, and written in two pieces: neither waits for the other.
        _ = stream.set_nodelay(true);
        self.next += 1;
        (stream, Connection(self.next - 1))
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(Connection::default())
    }
}

impl Connected<IncomingStream<'_, Counting>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Counting>) -> Self {
        *stream.remote_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_best_number_of_requests_at_once() {
        let (delay, serial) = (Duration::from_millis(20), Duration::from_millis(2));
        let work = Work { delay, serial, crowding_percent: 5 };
        // What so many can have in a second, if each asks again at once.
        let rate = |at_once: u32| {
            let serial = work.serial_among(at_once as usize - 1);
            f64::from(at_once) / (delay + serial).max(serial * at_once).as_secs_f64()
        };
        let [one, some, many] = [1, 9, 35].map(rate);
        assert!((45.0..46.0).contains(&one), "{one}");
        assert!(some > 7.0 * one && some > 1.5 * many, "{one} {some} {many}");
    }

    #[tokio::test]
    async fn what_is_serial_is_done_one_by_one() {
        let backend = Backend::new(35);
        let work = Work { serial: Duration::from_millis(5), ..Work::default() };
        let began = Instant::now();
        futures::future::join_all((0..8).map(|_| backend.work(work, async {}))).await;
        assert!(began.elapsed() >= 8 * work.serial);
    }
}
