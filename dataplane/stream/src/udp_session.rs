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
//! far, so a flood of forged sources displaces itself and not those that talk. A source that has
//! more than its share gives way before all others, and to others only: nobody can fill a socket
//! alone.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

mod sources;

pub(crate) use sources::source_of;
use sources::{Source, Sources};

/// The part of all sessions that a source may have while others want room.
const SHARE: usize = 8;
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
    /// The same of a session that is to leave.
    pub(crate) leaving_idle: Duration,
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
    /// Datagrams that still waited.
    pub(crate) waited: usize,
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
    /// By [`Group`]; the most silent one first.
    lists: [List; 3],
    sources: Sources,
    /// When those that are to leave must be gone, the next one first.
    deadlines: VecDeque<(Duration, Id)>,
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
    /// Neighbours in the list of all, and among those of its source.
    links: [Links; 2],
    source: u32,
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
    /// It ends when it falls silent, or at its deadline.
    Leaving,
}

/// The list a session is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// Its client was not heard again since it was answered.
    Fresh,
    Settled,
    Leaving,
}

impl Standing {
    fn group(self) -> Group {
        match self {
            Self::New | Self::Answered => Group::Fresh,
            Self::Settled => Group::Settled,
            Self::Leaving => Group::Leaving,
        }
    }
}

/// Which of the two lists of a session.
#[derive(Clone, Copy, Debug)]
enum Of {
    All,
    Source,
}

/// Neighbours in a list.
#[derive(Clone, Copy, Debug)]
struct Links {
    before: u32,
    behind: u32,
}

/// Sessions in the order in which they fell silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
            lists: [List::EMPTY; 3],
            sources: Sources::default(),
            deadlines: VecDeque::new(),
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
        self.touch(at, now, |standing| match standing {
            Standing::Answered => Standing::Settled,
            other => other,
        });
        let generation = self.slots[at as usize].generation;
        Some(Id { at, generation })
    }

    /// Notes that the endpoint has sent something now; true for its first time.
    pub(crate) fn answered(&mut self, id: Id, now: Duration) -> bool {
        let Some(session) = self.session(id) else {
            return false;
        };
        let is_first = session.standing == Standing::New;
        self.touch(id.at, now, |standing| match standing {
            Standing::New => Standing::Answered,
            other => other,
        });
        is_first
    }

    /// Lets a session go: it ends once it falls silent, and at `until` in any case, which never is
    /// sooner than what was said before.
    pub(crate) fn leave(&mut self, id: Id, now: Duration, until: Duration) {
        let stays = |session: &Session<T>| session.standing != Standing::Leaving;
        if self.session(id).is_some_and(stays) {
            self.touch(id.at, now, |_| Standing::Leaving);
            if self.deadlines.len() > self.slots.len() * 2 {
                let mut deadlines = std::mem::take(&mut self.deadlines);
                deadlines.retain(|(_, id)| self.session(*id).is_some());
                self.deadlines = deadlines;
            }
            self.deadlines.push_back((until, id));
        }
    }

    /// All that there are.
    pub(crate) fn ids(&self) -> Vec<Id> {
        let slots = (0..).zip(&self.slots);
        let taken = slots.filter(|(_, slot)| slot.session.is_some());
        taken
            .map(|(at, slot)| Id {
                at,
                generation: slot.generation,
            })
            .collect()
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
            links: [Links::NONE; 2],
            source: self.sources.enter(source_of(flow.client.ip())),
            queue: VecDeque::new(),
            load,
        });
        let generation = slot.generation;
        self.by_flow.insert(flow, at);
        self.link(at);
        Some(Id { at, generation })
    }

    /// Ends the session that may best give way to one of `client`; nothing when none may.
    pub(crate) fn make_room(&mut self, client: IpAddr) -> Option<Ended<T>> {
        let share = (self.len() / SHARE).max(1);
        let has_more = |source: &Source| source.count as usize > share;
        let own = self.sources.of(source_of(client));
        if let Some(own) = own.filter(has_more) {
            return self.take(own.first_fresh());
        }
        let own = own.map_or(0, |own| own.count);
        // It must have more than the newcomer's source will have, or they would take turns.
        let largest = self.sources.largest();
        let largest = largest.filter(|largest| largest.count > own + 1);
        if let Some(largest) = largest.filter(has_more) {
            return self.take(largest.most_silent());
        }
        let fresh = self.lists[Group::Fresh as usize].first;
        match fresh {
            NONE => self.take(largest?.most_silent()),
            fresh => self.take(fresh),
        }
    }

    /// Ends a session.
    pub(crate) fn end(&mut self, id: Id) -> Option<Ended<T>> {
        self.session(id)?;
        self.take(id.at)
    }

    /// Ends a session that has been silent for too long; to be called until there is none.
    pub(crate) fn expire(&mut self, now: Duration) -> Option<Ended<T>> {
        let groups = [Group::Leaving, Group::Fresh, Group::Settled];
        let mut firsts = groups
            .into_iter()
            .filter_map(|group| self.silent_since(group));
        let (at, _) = firsts.find(|(_, ends)| *ends <= now)?;
        self.take(at)
    }

    /// Ends a session that should have left by now; to be called until there is none.
    pub(crate) fn overdue(&mut self, now: Duration) -> Option<Ended<T>> {
        let (_, id) = *self.deadlines.front().filter(|(until, _)| *until <= now)?;
        // Those that have ended are taken out of the front with them.
        self.take(id.at)
    }

    /// When [`Self::expire`] or [`Self::overdue`] may next have something to do.
    pub(crate) fn next_expiry(&self) -> Option<Duration> {
        let groups = [Group::Leaving, Group::Fresh, Group::Settled];
        let silent = groups
            .into_iter()
            .filter_map(|group| self.silent_since(group));
        let silent = silent.map(|(_, ends)| ends);
        silent
            .chain(self.deadlines.front().map(|(until, _)| *until))
            .min()
    }

    /// Ends any session; nothing when none is left.
    pub(crate) fn end_any(&mut self) -> Option<Ended<T>> {
        let mut firsts = self.lists.iter().map(|list| list.first);
        let at = firsts.find(|first| *first != NONE)?;
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

    /// The most silent session of a group, and when it ends if it stays so.
    fn silent_since(&self, group: Group) -> Option<(u32, Duration)> {
        let at = self.lists[group as usize].first;
        let session = self.slots.get(at as usize)?.session.as_ref()?;
        let idle = match group {
            Group::Leaving => self.limits.leaving_idle,
            Group::Fresh | Group::Settled => self.limits.idle,
        };
        Some((at, session.last + idle))
    }

    fn take(&mut self, at: u32) -> Option<Ended<T>> {
        let group = self.at(at)?.standing.group();
        self.unlink(at, group);
        let session = self.slots[at as usize].session.take()?;
        self.free.push(at);
        if group != Group::Leaving {
            self.sources.leave(session.source);
        }
        while let Some((_, id)) = self.deadlines.front()
            && self.session(*id).is_none()
        {
            self.deadlines.pop_front();
        }
        self.by_flow.remove(&session.flow);
        let waiting: usize = session.queue.iter().map(|datagram| datagram.len()).sum();
        self.queued_bytes -= waiting;
        Some(Ended {
            flow: session.flow,
            load: session.load,
            waited: session.queue.len(),
        })
    }

    /// Notes that a session was heard now, and how far it has come by that.
    fn touch(&mut self, at: u32, now: Duration, next: impl Fn(Standing) -> Standing) {
        let Some(session) = self.at(at) else { return };
        let (before, after) = (session.standing, next(session.standing));
        session.last = now;
        session.standing = after;
        let (before, after) = (before.group(), after.group());
        let source = session.source;
        if before == after && self.is_last(at, before, source) {
            return;
        }
        self.unlink(at, before);
        if before != after && after == Group::Leaving {
            self.sources.leave(source);
        }
        self.link(at);
    }

    /// True when a session is at the end of its lists already.
    fn is_last(&mut self, at: u32, group: Group, source: u32) -> bool {
        self.lists[group as usize].last == at
            && (group == Group::Leaving
                || self
                    .sources
                    .at(source)
                    .is_some_and(|source| source.lists[group as usize].last == at))
    }

    /// Puts a session at the end of the lists that it belongs to.
    fn link(&mut self, at: u32) {
        let Some(session) = self.at(at) else { return };
        let (group, source) = (session.standing.group() as usize, session.source);
        push(&mut self.slots, &mut self.lists[group], Of::All, at);
        if group != Group::Leaving as usize
            && let Some(source) = self.sources.at(source)
        {
            push(&mut self.slots, &mut source.lists[group], Of::Source, at);
        }
    }

    /// Takes a session out of the lists of the group that it was put there with.
    fn unlink(&mut self, at: u32, group: Group) {
        let Some(session) = self.at(at) else { return };
        let (group, source) = (group as usize, session.source);
        pull(&mut self.slots, &mut self.lists[group], Of::All, at);
        if group != Group::Leaving as usize
            && let Some(source) = self.sources.at(source)
        {
            pull(&mut self.slots, &mut source.lists[group], Of::Source, at);
        }
    }
}

fn links<T>(slots: &mut [Slot<T>], of: Of, at: u32) -> Option<&mut Links> {
    let session = slots.get_mut(at as usize)?.session.as_mut()?;
    Some(&mut session.links[of as usize])
}

/// Puts a session at the end of a list.
fn push<T>(slots: &mut [Slot<T>], list: &mut List, of: Of, at: u32) {
    if let Some(links) = links(slots, of, at) {
        (links.before, links.behind) = (list.last, NONE);
    }
    if let Some(last) = links(slots, of, list.last) {
        last.behind = at;
    }
    list.last = at;
    if list.first == NONE {
        list.first = at;
    }
}

/// Takes a session out of the list that it is in.
fn pull<T>(slots: &mut [Slot<T>], list: &mut List, of: Of, at: u32) {
    let Some(Links { before, behind }) = links(slots, of, at).copied() else {
        return;
    };
    if let Some(links) = links(slots, of, before) {
        links.behind = behind;
    }
    if let Some(links) = links(slots, of, behind) {
        links.before = before;
    }
    if list.first == at {
        list.first = behind;
    }
    if list.last == at {
        list.last = before;
    }
}

impl Source {
    fn first_fresh(&self) -> u32 {
        self.lists[Group::Fresh as usize].first
    }

    /// The one that may best give way: of those that never came back, if there are any.
    fn most_silent(&self) -> u32 {
        match self.first_fresh() {
            NONE => self.lists[Group::Settled as usize].first,
            fresh => fresh,
        }
    }
}

impl Links {
    const NONE: Self = Self {
        before: NONE,
        behind: NONE,
    };
}

impl List {
    const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
    };
}

#[cfg(test)]
mod tests;
