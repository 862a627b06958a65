//! The WebSockets of this replica.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use data_encoding::HEXLOWER;
use metrics::Gauge;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::close::Close;
use crate::core::Caller;
use crate::presence::Keeper;

/// The WebSockets of this replica, by user; those whose user is not known yet are only counted.
#[derive(Default)]
pub struct Sockets {
    /// Who of them is online.
    pub keeper: Keeper,
    pub(super) tasks: TaskTracker,
    pub(super) draining: CancellationToken,
    /// Cuts off whatever is still there.
    pub(super) cut: CancellationToken,
    users: Arc<Mutex<Users>>,
    count: Arc<AtomicUsize>,
    last: AtomicU64,
}

type Users = HashMap<String, HashMap<u64, Handle>>;

/// How a socket's own task is reached.
struct Handle {
    queue: mpsc::Sender<Push>,
    ending: Arc<Ending>,
    session: Option<[u8; 32]>,
}

/// What is handed to a socket's task.
pub(super) enum Push {
    /// To be written.
    Text(Utf8Bytes),
    /// What was known about the user's session may be wrong; ask again.
    Recheck,
}

/// Says to a socket's task that it is over, and why; the first reason counts.
#[derive(Default)]
pub(super) struct Ending {
    close: OnceLock<Close>,
    told: Notify,
}

/// A socket's place here; given up when dropped.
pub(super) struct Seat {
    number: u64,
    user: Option<String>,
    users: Arc<Mutex<Users>>,
    count: Arc<AtomicUsize>,
    open: Gauge,
    pub(super) ending: Arc<Ending>,
}

impl Sockets {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Closes all of them with a reason that says to come back elsewhere, takes no new ones, and waits
    /// until each is closed and its user gone offline. Cancel safe.
    pub async fn drain(&self) {
        self.draining.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A place for one more; `None` if there are `most` already, or this replica goes away.
    pub(super) fn sit(&self, most: usize, open: &Gauge) -> Option<Seat> {
        let room = |count| (count < most).then_some(count + 1);
        if self.draining.is_cancelled()
            || self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_err()
        {
            return None;
        }
        open.increment(1.0);
        Some(Seat {
            number: self.last.fetch_add(1, Ordering::Relaxed),
            user: None,
            users: Arc::clone(&self.users),
            count: Arc::clone(&self.count),
            open: open.clone(),
            ending: Arc::default(),
        })
    }

    /// Hands a text to every socket of a user, and says to how many. One whose queue is full is closed:
    /// what it missed it could not know.
    pub(super) fn tell(&self, user: &str, text: &Utf8Bytes) -> u64 {
        let users = self.users.lock();
        let mut told = 0;
        for handle in users.get(user).into_iter().flat_map(HashMap::values) {
            match handle.queue.try_send(Push::Text(text.clone())) {
                Ok(()) => told += 1,
                Err(_) => handle.ending.end(Close::Slow),
            }
        }
        told
    }

    /// Users with a socket here.
    pub(super) fn users(&self) -> Vec<String> {
        self.users.lock().keys().cloned().collect()
    }

    /// Whether a user has a socket here.
    pub(super) fn has(&self, user: &str) -> bool {
        self.users.lock().contains_key(user)
    }

    /// Closes the sockets of a user whose session is over; `None` is all of their sessions.
    pub(super) fn end_session(&self, user: &str, session: Option<&str>) {
        let users = self.users.lock();
        for handle in users.get(user).into_iter().flat_map(HashMap::values) {
            let own = handle.session.map(|hash| HEXLOWER.encode(&hash));
            if session.is_none() || session == own.as_deref() {
                handle.ending.end(Close::SessionOver);
            }
        }
    }

    /// Has every socket ask whether its session still holds.
    pub(super) fn recheck(&self) {
        for handle in self.users.lock().values().flat_map(HashMap::values) {
            if handle.queue.try_send(Push::Recheck).is_err() {
                handle.ending.end(Close::Slow);
            }
        }
    }
}

impl Seat {
    /// Is this user's from now on; false if they have `most` here already.
    pub(super) fn enter(&mut self, caller: &Caller, queue: &mpsc::Sender<Push>, most: u32) -> bool {
        let mut users = self.users.lock();
        let taken = users
            .get(&caller.user)
            .map_or(0, |sockets| sockets.keys().filter(|number| **number != self.number).count());
        if taken >= usize::try_from(most).unwrap_or(usize::MAX) {
            return false;
        }
        let handle =
            Handle { queue: queue.clone(), ending: Arc::clone(&self.ending), session: caller.session };
        users.entry(caller.user.clone()).or_default().insert(self.number, handle);
        self.user = Some(caller.user.clone());
        true
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(user) = &self.user {
            let mut users = self.users.lock();
            if let Some(sockets) = users.get_mut(user) {
                sockets.remove(&self.number);
                if sockets.is_empty() {
                    users.remove(user);
                }
            }
        }
        self.count.fetch_sub(1, Ordering::AcqRel);
        self.open.decrement(1.0);
    }
}

impl Ending {
    fn end(&self, close: Close) {
        if self.close.set(close).is_ok() {
            self.told.notify_one();
        }
    }

    /// Completes when the socket is over. For one waiter at a time; cancel safe.
    pub(super) async fn ended(&self) -> Close {
        loop {
            if let Some(close) = self.close.get() {
                return *close;
            }
            self.told.notified().await;
        }
    }
}
