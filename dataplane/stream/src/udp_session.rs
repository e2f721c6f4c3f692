//! Which datagrams belong together, for how long, and how many such sessions there are.
//!
//! A session is what one client sends to one of our addresses, and what comes back, for as long as
//! neither side is silent for too long. This is the whole of its bookkeeping and nothing else: no
//! socket, no clock, no configuration. `udp.rs` says what arrived and when, is told which session it
//! belongs to, and keeps in each one what it needs ([`Session::load`]), such as the endpoint, which
//! therefore never changes while the session lives. Everything here has a limit; the tests repeat
//! random histories by seed.
//!
//! When there is no room, a session gives way whose client was not heard again since it was
//! answered, the one that is silent for longest. A client that forges its source never gets that
//! far, so a flood of forged sources displaces itself and not those that talk.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// End of a list.
const NONE: u32 = u32::MAX;

/// Who sends, and to which of our addresses where the socket has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub(crate) client: SocketAddr,
    pub(crate) local: Option<IpAddr>,
}

/// What holds for all sessions of one socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long neither side may send anything.
    pub(crate) idle: Duration,
    /// Sessions at once.
    pub(crate) sessions: usize,
    /// Datagrams of one session that may wait.
    pub(crate) queue: usize,
    /// Bytes of all sessions that may wait.
    pub(crate) queue_bytes: usize,
}

/// A session, for as long as it lives; the id of one that has ended finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    at: u32,
    generation: u32,
}

/// A session that is over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended<T> {
    pub(crate) flow: Flow,
    pub(crate) load: T,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// All sessions of one socket.
#[derive(Debug)]
pub(crate) struct Sessions<T> {
    limits: Limits,
    by_flow: HashMap<Flow, u32>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// Those whose client was not heard again since it was answered; the most silent one first.
    fresh: List,
    /// The others.
    settled: List,
    queued_bytes: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    session: Option<Session<T>>,
}

#[derive(Debug)]
struct Session<T> {
    flow: Flow,
    standing: Standing,
    last: Duration,
    before: u32,
    behind: u32,
    queue: VecDeque<Box<[u8]>>,
    load: T,
}

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Only its client has sent.
    New,
    /// The endpoint has answered.
    Answered,
    /// And after that the client was heard again.
    Settled,
}

/// Sessions in the order in which they fell silent.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

impl<T> Sessions<T> {
    /// No session yet.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            by_flow: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            fresh: List::EMPTY,
            settled: List::EMPTY,
            queued_bytes: 0,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_flow.len()
    }

    /// True when there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_flow.is_empty()
    }

    /// True when another one needs [`Self::make_room`] first.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.limits.sessions
    }

    /// The session of a datagram that its client has sent now.
    pub(crate) fn heard(&mut self, flow: &Flow, now: Duration) -> Option<Id> {
        let at = *self.by_flow.get(flow)?;
        self.unlink(at);
        let slot = &mut self.slots[at as usize];
        let session = slot.session.as_mut()?;
        if session.standing == Standing::Answered {
            session.standing = Standing::Settled;
        }
        session.last = now;
        let generation = slot.generation;
        self.link(at);
        Some(Id { at, generation })
    }

    /// Notes that the endpoint has sent something now; true for its first time.
    pub(crate) fn answered(&mut self, id: Id, now: Duration) -> bool {
        if self.session(id).is_none() {
            return false;
        }
        self.unlink(id.at);
        let mut is_first = false;
        if let Some(session) = self.session_mut(id) {
            session.last = now;
            is_first = session.standing == Standing::New;
            if is_first {
                session.standing = Standing::Answered;
            }
        }
        self.link(id.at);
        is_first
    }

    /// Begins a session; nothing when there is no room, or the flow has one already.
    pub(crate) fn begin(&mut self, flow: Flow, now: Duration, load: T) -> Option<Id> {
        if self.is_full() || self.by_flow.contains_key(&flow) {
            return None;
        }
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                let at = u32::try_from(self.slots.len())
                    .ok()
                    .filter(|at| *at != NONE)?;
                self.slots.push(Slot {
                    generation: 0,
                    session: None,
                });
                at
            }
        };
        let slot = &mut self.slots[at as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.session = Some(Session {
            flow,
            standing: Standing::New,
            last: now,
            before: NONE,
            behind: NONE,
            queue: VecDeque::new(),
            load,
        });
        let generation = slot.generation;
        self.by_flow.insert(flow, at);
        self.link(at);
        Some(Id { at, generation })
    }

    /// Ends the session that may best give way to another one; nothing when none may.
    pub(crate) fn make_room(&mut self) -> Option<Ended<T>> {
        self.take(self.fresh.first)
    }

    /// Ends a session.
    pub(crate) fn end(&mut self, id: Id) -> Option<Ended<T>> {
        self.session(id)?;
        self.take(id.at)
    }

    /// Ends a session that has been silent for too long; to be called until there is none.
    pub(crate) fn expire(&mut self, now: Duration) -> Option<Ended<T>> {
        let (at, last) = self.most_silent()?;
        if last + self.limits.idle > now {
            return None;
        }
        self.take(at)
    }

    /// When [`Self::expire`] may next have something to do.
    pub(crate) fn next_expiry(&self) -> Option<Duration> {
        let (_, last) = self.most_silent()?;
        Some(last + self.limits.idle)
    }

    /// Ends any session; nothing when none is left.
    pub(crate) fn end_any(&mut self) -> Option<Ended<T>> {
        let (at, _) = self.most_silent()?;
        self.take(at)
    }

    /// Changes for how long sessions may be silent, those that are there included.
    pub(crate) fn set_idle(&mut self, idle: Duration) {
        self.limits.idle = idle;
    }

    /// What the shell keeps in a session.
    pub(crate) fn load(&mut self, id: Id) -> Option<&mut T> {
        self.session_mut(id).map(|session| &mut session.load)
    }

    /// Keeps a datagram that cannot be sent yet, behind those that wait already.
    pub(crate) fn keep(&mut self, id: Id, datagram: &[u8]) -> Result<(), Full> {
        let Limits {
            queue, queue_bytes, ..
        } = self.limits;
        let bytes = self.queued_bytes + datagram.len();
        let session = self.session_mut(id).ok_or(Full)?;
        if session.queue.len() >= queue || bytes > queue_bytes {
            return Err(Full);
        }
        session.queue.push_back(datagram.into());
        self.queued_bytes = bytes;
        Ok(())
    }

    /// The datagram of a session that waits for longest.
    pub(crate) fn waiting(&self, id: Id) -> Option<&[u8]> {
        let session = self.session(id)?;
        session.queue.front().map(|datagram| &**datagram)
    }

    /// Lets go of that datagram.
    pub(crate) fn drop_waiting(&mut self, id: Id) {
        let gone = self
            .session_mut(id)
            .and_then(|session| session.queue.pop_front());
        self.queued_bytes -= gone.map_or(0, |datagram| datagram.len());
    }

    fn session(&self, id: Id) -> Option<&Session<T>> {
        let slot = self.slots.get(id.at as usize)?;
        let session = slot.session.as_ref()?;
        (slot.generation == id.generation).then_some(session)
    }

    fn session_mut(&mut self, id: Id) -> Option<&mut Session<T>> {
        let slot = self.slots.get_mut(id.at as usize)?;
        let session = slot.session.as_mut()?;
        (slot.generation == id.generation).then_some(session)
    }

    fn at(&mut self, at: u32) -> Option<&mut Session<T>> {
        self.slots.get_mut(at as usize)?.session.as_mut()
    }

    /// The session that is silent for longest, and since when.
    fn most_silent(&self) -> Option<(u32, Duration)> {
        let last = |at: u32| {
            let session = self.slots.get(at as usize)?.session.as_ref()?;
            Some((at, session.last))
        };
        let fresh = last(self.fresh.first);
        let settled = last(self.settled.first);
        match (fresh, settled) {
            (Some(fresh), Some(settled)) if settled.1 < fresh.1 => Some(settled),
            (fresh, settled) => fresh.or(settled),
        }
    }

    fn take(&mut self, at: u32) -> Option<Ended<T>> {
        self.at(at)?;
        self.unlink(at);
        let session = self.slots[at as usize].session.take()?;
        self.free.push(at);
        self.by_flow.remove(&session.flow);
        let waiting: usize = session.queue.iter().map(|datagram| datagram.len()).sum();
        self.queued_bytes -= waiting;
        Some(Ended {
            flow: session.flow,
            load: session.load,
        })
    }

    /// Puts a session at the end of the list that it belongs to.
    fn link(&mut self, at: u32) {
        let is_settled = |session: &mut Session<T>| session.standing == Standing::Settled;
        let Some(is_settled) = self.at(at).map(is_settled) else {
            return;
        };
        let last = self.list(is_settled).last;
        if let Some(session) = self.at(at) {
            (session.before, session.behind) = (last, NONE);
        }
        if let Some(last) = self.at(last) {
            last.behind = at;
        }
        let list = self.list(is_settled);
        list.last = at;
        if list.first == NONE {
            list.first = at;
        }
    }

    /// Takes a session out of its list; its standing must still be the one it was put there with.
    fn unlink(&mut self, at: u32) {
        let Some(session) = self.at(at) else { return };
        let (before, behind) = (session.before, session.behind);
        let is_settled = session.standing == Standing::Settled;
        if let Some(session) = self.at(before) {
            session.behind = behind;
        }
        if let Some(session) = self.at(behind) {
            session.before = before;
        }
        let list = self.list(is_settled);
        if list.first == at {
            list.first = behind;
        }
        if list.last == at {
            list.last = before;
        }
    }

    fn list(&mut self, is_settled: bool) -> &mut List {
        match is_settled {
            true => &mut self.settled,
            false => &mut self.fresh,
        }
    }
}

impl List {
    const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
    };
}

#[cfg(test)]
mod tests;
