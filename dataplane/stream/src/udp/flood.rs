//! How many datagrams and new sessions are taken a second: of one source, of one listener, of all.
//!
//! Counted in token buckets that all workers share. A source is an address, and for IPv6 the /64
//! that it is in, because that is what one client has. What is not limited costs nothing.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dataplane_resilience::admission::Gate;
use dataplane_resilience::pressure::SharedLevel;
use dataplane_resilience::token_bucket::{Bucket, Keyed, Rate};

use crate::settings::UdpSettings;
use crate::udp_session::source_of;

/// Limits of all UDP listeners together; shared by all workers.
#[derive(Debug)]
pub struct Limits {
    /// Everything that has a connection or session, of whatever kind.
    pub process: Gate,
    /// Sessions.
    pub sessions: Gate,
    /// How pressed the process is for memory.
    pub level: SharedLevel,
    datagrams: Limited<Bucket>,
    source_datagrams: Limited<Sources>,
    source_sessions: Limited<Sources>,
    began: Instant,
}

/// Limits of one UDP listener's socket; shared by all workers.
#[derive(Debug)]
pub struct ListenerLimits {
    /// Its sessions.
    pub(crate) sessions: Gate,
    datagrams: Limited<Bucket>,
    new_sessions: Limited<Bucket>,
}

/// A rate and what is counted by it; nothing when that is not limited.
type Limited<T> = Option<(Rate, T)>;

struct Sources {
    buckets: Keyed,
    hasher: RandomState,
}

impl Limits {
    /// With the rates of `settings`.
    pub fn new(process: Gate, sessions: Gate, level: SharedLevel, settings: &UdpSettings) -> Self {
        let sources = || Sources::with_room_for(settings.sources_max);
        Self {
            process,
            sessions,
            level,
            datagrams: limited(settings.datagrams_per_second, Bucket::default),
            source_datagrams: limited(settings.source_datagrams_per_second, sources),
            source_sessions: limited(settings.source_sessions_per_second, sources),
            began: Instant::now(),
        }
    }

    /// The time as all workers count it.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The same time, for a timer.
    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.began + at
    }

    /// True when datagrams have to be asked about one by one.
    pub(crate) fn counts_datagrams(&self, listener: &ListenerLimits) -> bool {
        self.datagrams.is_some() || self.source_datagrams.is_some() || listener.datagrams.is_some()
    }

    /// Whether one more datagram of a source is taken.
    pub(crate) fn admits_datagram(
        &self,
        listener: &ListenerLimits,
        source: IpAddr,
        now: Duration,
    ) -> bool {
        // The narrowest first, so that a loud source does not use up what others share.
        of_source(self.source_datagrams.as_ref(), source, now)
            && of_all(listener.datagrams.as_ref(), now)
            && of_all(self.datagrams.as_ref(), now)
    }

    /// Whether a source may begin one more session.
    pub(crate) fn admits_session(
        &self,
        listener: &ListenerLimits,
        source: IpAddr,
        now: Duration,
    ) -> bool {
        of_source(self.source_sessions.as_ref(), source, now)
            && of_all(listener.new_sessions.as_ref(), now)
    }
}

impl ListenerLimits {
    /// With the rates of `settings`.
    pub fn new(settings: &UdpSettings) -> Self {
        Self {
            sessions: Gate::new(settings.listener_sessions_max),
            datagrams: limited(settings.listener_datagrams_per_second, Bucket::default),
            new_sessions: limited(settings.listener_sessions_per_second, Bucket::default),
        }
    }
}

fn limited<T>(per_second: Option<u64>, counter: impl FnOnce() -> T) -> Limited<T> {
    let per_second = per_second?;
    let rate = Rate::new(per_second, Duration::from_secs(1), per_second);
    Some((rate, counter()))
}

fn of_all(limited: Option<&(Rate, Bucket)>, now: Duration) -> bool {
    limited.is_none_or(|(rate, bucket)| bucket.take(rate, 1, now).is_ok())
}

fn of_source(limited: Option<&(Rate, Sources)>, source: IpAddr, now: Duration) -> bool {
    limited.is_none_or(|(rate, sources)| {
        let key = sources.hasher.hash_one(source_of(source));
        sources.buckets.take(key, rate, 1, now).is_ok()
    })
}

impl Sources {
    fn with_room_for(sources: usize) -> Self {
        Self {
            buckets: Keyed::with_room_for(sources),
            hasher: RandomState::new(),
        }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loud_source_is_held_back_and_others_are_not() {
        let settings = UdpSettings {
            source_datagrams_per_second: Some(3),
            listener_datagrams_per_second: Some(5),
            ..UdpSettings::default()
        };
        let gate = || Gate::new(None);
        let limits = Limits::new(gate(), gate(), SharedLevel::default(), &settings);
        let listener = ListenerLimits::new(&settings);
        assert!(limits.counts_datagrams(&listener));
        let now = Duration::ZERO;
        let admitted = |source: &str| {
            let source = source.parse().unwrap();
            (0..10)
                .filter(|_| limits.admits_datagram(&listener, source, now))
                .count()
        };
        assert_eq!(admitted("192.0.2.1"), 3);
        // The same /64 is the same client; and the listener has had its five.
        assert_eq!(admitted("2001:db8::1") + admitted("2001:db8::2"), 2);
    }

    #[test]
    fn as_many_sources_are_told_apart_as_the_limit_says() {
        for (sources_max, is_held_back) in [(64, false), (65_536, true)] {
            let settings = UdpSettings {
                source_datagrams_per_second: Some(100),
                sources_max,
                ..UdpSettings::default()
            };
            let gate = || Gate::new(None);
            let limits = Limits::new(gate(), gate(), SharedLevel::default(), &settings);
            let listener = ListenerLimits::new(&settings);
            let send = |source: u32, count: usize| {
                let source = std::net::Ipv4Addr::from(source).into();
                let admitted =
                    |_: &usize| limits.admits_datagram(&listener, source, Duration::ZERO);
                (0..count).filter(admitted).count()
            };
            // Each of them has more held against it than the one before all.
            assert_eq!(send(0, 99), 99);
            for source in 1..1000 {
                send(source, 100);
            }
            assert_eq!(send(0, 2) == 1, is_held_back, "{sources_max}");
        }
    }
}
