//! Random histories, repeated by seed, against a model that is slow and plain.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

const SEEDS: u64 = 300;
const STEPS: usize = 1_000;
/// How long those that are to leave may go on.
const DRAIN: Duration = Duration::from_millis(700);

/// What is known of a session by somebody who writes everything down.
#[derive(Debug)]
struct Known {
    id: Id,
    /// Drawn when it began, and never again.
    backend: u32,
    last: Duration,
    /// Which change of `last` this was, for those at one moment.
    order: u64,
    is_answered: bool,
    is_settled: bool,
    /// When it must be gone, once it is to leave.
    until: Option<Duration>,
    queue: VecDeque<Vec<u8>>,
}

struct Simulation {
    random: SmallRng,
    limits: Limits,
    sessions: Sessions<u32>,
    model: BTreeMap<Flow, Known>,
    ended: Vec<Id>,
    now: Duration,
    order: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let limits = Limits {
            idle: Duration::from_millis(random.random_range(1..2_000)),
            leaving_idle: Duration::from_millis(random.random_range(1..500)),
            sessions: random.random_range(1..40),
            queue: random.random_range(0..6),
            queue_bytes: random.random_range(0..4_000),
        };
        Self {
            random,
            limits,
            sessions: Sessions::new(limits),
            model: BTreeMap::new(),
            ended: Vec::new(),
            now: Duration::ZERO,
            order: 0,
        }
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            match self.random.random_range(0..100) {
                0..45 => self.client_sends(),
                45..65 => self.endpoint_sends(),
                65..70 => self.endpoint_is_unreachable(),
                70..80 => self.keep(),
                80..85 => self.let_go(),
                85..88 => self.late_news_of_the_dead(),
                88 => self.idle_changes(),
                89 => self.leaves(),
                _ => self.time_passes(),
            }
            self.check();
        }
        while let Some(ended) = self.sessions.end_any() {
            let known = self.model.remove(&ended.flow).unwrap();
            assert_eq!(ended.load, known.backend);
        }
        assert!(self.model.is_empty() && self.sessions.is_empty());
        assert_eq!(self.sessions.queued_bytes, 0);
    }

    /// Few sources that come again and again, and many that come once.
    fn flow(&mut self) -> Flow {
        let host = match self.random.random_bool(0.7) {
            true => self.random.random_range(0..30),
            false => self.random.random(),
        };
        let port = self.random.random_range(0..3);
        let client = (Ipv4Addr::from_bits(host), port).into();
        let local = match self.random.random_range(0..3) {
            0 => None,
            n => Some(Ipv4Addr::new(10, 0, 0, n).into()),
        };
        Flow { client, local }
    }

    fn any(&mut self) -> Option<Flow> {
        let at = self.random.random_range(0..self.model.len().max(1));
        self.model.keys().nth(at).copied()
    }

    fn touch(&mut self, flow: &Flow) {
        self.order += 1;
        let known = self.model.get_mut(flow).unwrap();
        (known.last, known.order) = (self.now, self.order);
    }

    fn client_sends(&mut self) {
        let flow = self.flow();
        let heard = self.sessions.heard(&flow, self.now);
        assert_eq!(heard, self.model.get(&flow).map(|known| known.id));
        if let Some(known) = self.model.get_mut(&flow) {
            known.is_settled |= known.is_answered;
            return self.touch(&flow);
        }
        assert_eq!(
            self.sessions.is_full(),
            self.model.len() == self.limits.sessions
        );
        if self.sessions.is_full() {
            let may_go = self.may_give_way(flow);
            let gone = self.sessions.make_room(flow.client.ip());
            match &gone {
                Some(gone) => assert!(may_go.contains(&gone.flow), "{gone:?} {may_go:?}"),
                None => assert!(may_go.is_empty(), "{may_go:?}"),
            }
            let Some(gone) = gone else {
                assert!(self.sessions.begin(flow, self.now, 0).is_none());
                return;
            };
            self.forget(gone);
        }
        let backend = self.random.random();
        let id = self.sessions.begin(flow, self.now, backend).unwrap();
        assert!(!self.ended.contains(&id), "an id is used again");
        let known = Known {
            id,
            backend,
            last: self.now,
            order: 0,
            is_answered: false,
            is_settled: false,
            until: None,
            queue: VecDeque::new(),
        };
        self.model.insert(flow, known);
        self.touch(&flow);
        assert!(self.sessions.begin(flow, self.now, 0).is_none(), "twice");
    }

    fn endpoint_sends(&mut self) {
        let Some(flow) = self.any() else { return };
        let known = self.model.get_mut(&flow).unwrap();
        let is_first = !known.is_answered;
        known.is_answered = true;
        let is_first = is_first && known.until.is_none();
        assert_eq!(self.sessions.answered(known.id, self.now), is_first);
        self.touch(&flow);
    }

    fn endpoint_is_unreachable(&mut self) {
        let Some(flow) = self.any() else { return };
        let ended = self.sessions.end(self.model[&flow].id).unwrap();
        assert_eq!(ended.flow, flow);
        self.forget(ended);
    }

    fn keep(&mut self) {
        let Some(flow) = self.any() else { return };
        let waiting: usize = self
            .model
            .values()
            .flat_map(|known| &known.queue)
            .map(Vec::len)
            .sum();
        let datagram = vec![7; self.random.random_range(0..1_000)];
        let known = self.model.get_mut(&flow).unwrap();
        let fits = known.queue.len() < self.limits.queue
            && waiting + datagram.len() <= self.limits.queue_bytes;
        assert_eq!(self.sessions.keep(known.id, &datagram).is_ok(), fits);
        if fits {
            known.queue.push_back(datagram);
        }
    }

    fn let_go(&mut self) {
        let Some(flow) = self.any() else { return };
        let known = self.model.get_mut(&flow).unwrap();
        assert_eq!(
            self.sessions.waiting(known.id),
            known.queue.front().map(Vec::as_slice)
        );
        self.sessions.drop_waiting(known.id);
        known.queue.pop_front();
    }

    /// What comes for a session that has ended meanwhile touches no other one.
    fn late_news_of_the_dead(&mut self) {
        let at = self.random.random_range(0..self.ended.len().max(1));
        let Some(id) = self.ended.get(at).copied() else {
            return;
        };
        assert!(!self.sessions.answered(id, self.now));
        assert!(self.sessions.load(id).is_none() && self.sessions.end(id).is_none());
        assert_eq!(self.sessions.keep(id, b"late"), Err(Full));
        assert!(self.sessions.waiting(id).is_none());
    }

    fn idle_changes(&mut self) {
        self.limits.idle = Duration::from_millis(self.random.random_range(1..2_000));
        self.sessions.set_idle(self.limits.idle);
    }

    fn time_passes(&mut self) {
        self.now += Duration::from_millis(self.random.random_range(0..300));
        while let Some(ended) = self.sessions.overdue(self.now) {
            let until = self.model[&ended.flow].until;
            assert!(until.is_some_and(|until| until <= self.now), "{until:?}");
            self.forget(ended);
        }
        while let Some(ended) = self.sessions.expire(self.now) {
            let ends = self.ends(&self.model[&ended.flow]);
            assert!(ends <= self.now, "{ends:?}");
            self.forget(ended);
        }
        let next = self.model.values().map(|known| self.ends(known)).min();
        assert!(next.is_none_or(|next| next > self.now));
    }

    /// When a session ends if nobody says anything any more.
    fn ends(&self, known: &Known) -> Duration {
        match known.until {
            Some(until) => until.min(known.last + self.limits.leaving_idle),
            None => known.last + self.limits.idle,
        }
    }

    fn leaves(&mut self) {
        let Some(flow) = self.any() else { return };
        let until = self.now + DRAIN;
        self.sessions.leave(self.model[&flow].id, self.now, until);
        if self.model[&flow].until.is_none() {
            self.touch(&flow);
            self.model.get_mut(&flow).unwrap().until = Some(until);
        }
    }

    /// Those of which one gives way to a newcomer: one, or one of each source that has the most.
    fn may_give_way(&self, newcomer: Flow) -> Vec<Flow> {
        let stays = self.model.iter().filter(|(_, known)| known.until.is_none());
        let mut by_source: BTreeMap<u128, Vec<(&Flow, &Known)>> = BTreeMap::new();
        for (flow, known) in stays {
            let source = by_source.entry(source_of(flow.client.ip())).or_default();
            source.push((flow, known));
        }
        let fresh = |all: &[(&Flow, &Known)]| {
            let fresh = all.iter().filter(|(_, known)| !known.is_settled);
            let oldest = fresh.min_by_key(|(_, known)| known.order);
            oldest.map(|(flow, _)| **flow)
        };
        let any = |all: &[(&Flow, &Known)]| {
            let oldest = all.iter().min_by_key(|(_, known)| known.order);
            fresh(all).or_else(|| oldest.map(|(flow, _)| **flow))
        };
        let share = (self.model.len() / SHARE).max(1);
        let own = by_source.get(&source_of(newcomer.client.ip()));
        let own = own.map(Vec::as_slice).unwrap_or_default();
        if own.len() > share {
            return fresh(own).into_iter().collect();
        }
        let most = by_source.values().map(Vec::len).max().unwrap_or_default();
        let of_largest = by_source.values().filter(|all| all.len() == most);
        let of_largest = || of_largest.clone().filter_map(|all| any(all)).collect();
        let may_take = most > own.len() + 1;
        if may_take && most > share {
            return of_largest();
        }
        let all: Vec<_> = by_source.values().flatten().copied().collect();
        match fresh(&all) {
            Some(fresh) => vec![fresh],
            None if may_take => of_largest(),
            None => Vec::new(),
        }
    }

    fn forget(&mut self, ended: Ended<u32>) {
        let known = self.model.remove(&ended.flow).unwrap();
        assert_eq!(
            ended.load, known.backend,
            "a session has changed its backend"
        );
        self.ended.push(known.id);
    }

    fn check(&mut self) {
        assert_eq!(self.sessions.len(), self.model.len());
        assert!(self.model.len() <= self.limits.sessions);
        assert!(
            self.sessions.slots.len() <= self.limits.sessions,
            "memory grows"
        );
        assert!(self.sessions.queued_bytes <= self.limits.queue_bytes);
        let next = self.model.values().map(|known| self.ends(known)).min();
        assert!(self.sessions.deadlines.len() <= 2 * self.limits.sessions + 1);
        assert_eq!(self.sessions.next_expiry(), next);
        let Some(flow) = self.any() else { return };
        let known = &self.model[&flow];
        assert_eq!(self.sessions.load(known.id).copied(), Some(known.backend));
    }
}

#[test]
fn sessions_are_what_the_model_says() {
    for seed in 0..SEEDS {
        let simulation = std::panic::catch_unwind(|| Simulation::new(seed).run());
        assert!(simulation.is_ok(), "seed {seed}");
    }
}

#[test]
fn a_flood_of_new_sources_displaces_itself_and_not_those_that_talk() {
    let limits = Limits {
        idle: Duration::from_secs(60),
        leaving_idle: Duration::from_secs(2),
        sessions: 1_000,
        queue: 4,
        queue_bytes: 1 << 20,
    };
    let mut sessions = Sessions::new(limits);
    let flow = |host: u32| Flow {
        client: (Ipv4Addr::from_bits(host), 1).into(),
        local: None,
    };
    let now = Duration::from_secs(1);
    for host in 0..100 {
        let id = sessions.begin(flow(host), now, host).unwrap();
        assert!(sessions.answered(id, now));
        assert_eq!(sessions.heard(&flow(host), now), Some(id));
    }
    for host in 100..100_100 {
        if sessions.is_full() {
            let gone = sessions.make_room(flow(host).client.ip());
            assert!(gone.is_some_and(|gone| gone.load >= 100));
        }
        let id = sessions.begin(flow(host), now, host).unwrap();
        assert!(sessions.answered(id, now));
    }
    for host in 0..100 {
        let id = sessions.heard(&flow(host), now).unwrap();
        assert_eq!(sessions.load(id), Some(&mut host.clone()));
    }
    assert_eq!((sessions.len(), sessions.slots.len()), (1_000, 1_000));
}

#[test]
fn a_source_that_has_everything_gives_way_to_others_and_not_to_itself() {
    let limits = Limits {
        idle: Duration::from_secs(60),
        leaving_idle: Duration::from_secs(2),
        sessions: 100,
        queue: 4,
        queue_bytes: 1 << 20,
    };
    let mut sessions = Sessions::new(limits);
    let flow = |host: u32, port: u16| Flow {
        client: (Ipv4Addr::from_bits(host), port).into(),
        local: None,
    };
    let now = Duration::from_secs(1);
    let talk = |sessions: &mut Sessions<u32>, flow: Flow| {
        if sessions.is_full() && sessions.make_room(flow.client.ip()).is_none() {
            return false;
        }
        let id = sessions.begin(flow, now, 0).unwrap();
        sessions.answered(id, now);
        assert_eq!(sessions.heard(&flow, now), Some(id));
        true
    };
    for port in 0..100 {
        assert!(talk(&mut sessions, flow(1, port)));
    }
    assert!(!talk(&mut sessions, flow(1, 100)), "all of it talks");
    // Whoever else comes is let in, and stays although many more come.
    for host in 2..90 {
        assert!(talk(&mut sessions, flow(host, 0)), "{host}");
    }
    for host in 2..90 {
        assert!(sessions.heard(&flow(host, 0), now).is_some(), "{host}");
    }
    let left = |sessions: &mut Sessions<u32>| {
        let ports = (0..100).filter(|port| sessions.heard(&flow(1, *port), now).is_some());
        ports.count()
    };
    assert_eq!((left(&mut sessions), sessions.len()), (12, 100));
}

#[test]
fn a_share_of_each_part_is_that_share_of_the_whole() {
    const PARTS: usize = 4;
    const ALL: usize = 400;
    for seed in 0..SEEDS {
        let mut random = SmallRng::seed_from_u64(seed);
        let limits = Limits {
            idle: Duration::from_secs(60),
            leaving_idle: Duration::from_secs(2),
            sessions: ALL,
            queue: 4,
            queue_bytes: 1 << 20,
        };
        let mut parts = [(); PARTS].map(|()| Sessions::new(limits));
        let now = Duration::from_secs(1);
        // As workers do: the limit is counted together, and room is made where the newcomer is.
        let mut talk = |parts: &mut [Sessions<u32>; PARTS], host: u32, port: u16| {
            let flow = Flow {
                client: (Ipv4Addr::from_bits(host), port).into(),
                local: None,
            };
            let is_full = parts.iter().map(Sessions::len).sum::<usize>() >= ALL;
            let part = &mut parts[random.random_range(0..PARTS)];
            if is_full && part.make_room(flow.client.ip()).is_none() {
                return false;
            }
            let id = part.begin(flow, now, host).unwrap();
            part.answered(id, now);
            part.heard(&flow, now).is_some()
        };
        for port in 0..400 {
            assert!(talk(&mut parts, 1, port), "seed {seed}");
        }
        let of_source = |parts: &[Sessions<u32>; PARTS]| -> usize {
            let source = source_of(Ipv4Addr::from_bits(1).into());
            let counts = parts.iter().filter_map(|part| part.sources.of(source));
            counts.map(|source| source.count as usize).sum()
        };
        // While it has more than its share in every part, whoever comes is let in.
        for host in 2..202 {
            assert!(talk(&mut parts, host, 0), "seed {seed}: {host}");
        }
        assert_eq!(of_source(&parts), 200, "seed {seed}");
        // It gets nothing back, and ends with its share when everything is wanted.
        for port in 400..500 {
            talk(&mut parts, 1, port);
        }
        assert!(of_source(&parts) <= 200, "seed {seed}");
        for host in 1_000..3_000 {
            talk(&mut parts, host, 0);
        }
        let left = of_source(&parts);
        assert!(left <= ALL / SHARE + PARTS, "seed {seed}: {left}");
        assert_eq!(parts.iter().map(Sessions::len).sum::<usize>(), ALL);
    }
}
