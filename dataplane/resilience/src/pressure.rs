//! How hard the process is pressed for memory, as one of four levels.
//!
//! [`Pressure`] turns what is used and what there is into a [`Level`]; a level that was reached is
//! left only when the use has fallen clearly below it, so that it does not flutter. [`SharedLevel`]
//! carries it to the threads that serve: reading it is one relaxed load. What a level means is done
//! by its readers; who measures, and how often, is the caller's affair.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What a level asks of those who serve; each one asks for what the ones before it ask for, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    #[default]
    Normal,
    /// Keep no connection that could be ended; end the largest.
    Saving,
    /// Take no new request.
    Shedding,
    /// Take no new connection.
    Closed,
}

impl Level {
    /// Every level, the lightest first.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Saving, Self::Shedding, Self::Closed];

    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Saving => "saving",
            Self::Shedding => "shedding",
            Self::Closed => "closed",
        }
    }
}

/// Where levels begin, in percent of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// [`Level::Saving`].
    pub saving: u8,
    /// [`Level::Shedding`].
    pub shedding: u8,
    /// [`Level::Closed`].
    pub closed: u8,
    /// How far the use must fall below a level for it to end.
    pub slack: u8,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            saving: 85,
            shedding: 92,
            closed: 95,
            slack: 3,
        }
    }
}

/// The level, from one measurement to the next.
#[derive(Clone, Copy, Debug)]
pub struct Pressure {
    thresholds: Thresholds,
    level: Level,
}

impl Pressure {
    /// Nothing was measured yet.
    pub fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            level: Level::Normal,
        }
    }

    /// Takes one measurement in; the level from now on.
    pub fn observe(&mut self, used: u64, there_is: u64) -> Level {
        let reached = self.reached(used, there_is, 0);
        self.level = if reached >= self.level {
            reached
        } else {
            // On its way down a level holds on for as long as the slack.
            let held = self.reached(used, there_is, self.thresholds.slack);
            self.level.min(held)
        };
        self.level
    }

    fn reached(&self, used: u64, there_is: u64, slack: u8) -> Level {
        let Thresholds {
            saving,
            shedding,
            closed,
            ..
        } = self.thresholds;
        let is_over = |percent: u8| {
            let percent = u128::from(percent.saturating_sub(slack));
            u128::from(used) * 100 >= u128::from(there_is) * percent
        };
        [
            (closed, Level::Closed),
            (shedding, Level::Shedding),
            (saving, Level::Saving),
        ]
        .into_iter()
        .find_map(|(percent, level)| is_over(percent).then_some(level))
        .unwrap_or_default()
    }
}

/// The level of the moment, for all threads. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct SharedLevel(Arc<AtomicU8>);

impl SharedLevel {
    /// The level of the moment.
    pub fn get(&self) -> Level {
        match self.0.load(Ordering::Relaxed) {
            0 => Level::Normal,
            1 => Level::Saving,
            2 => Level::Shedding,
            _ => Level::Closed,
        }
    }

    /// Sets it for all.
    pub fn set(&self, level: Level) {
        self.0.store(level as u8, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn levels_begin_at_their_share_and_end_clearly_below_it() {
        let mut pressure = Pressure::new(Thresholds::default());
        for (used, level) in [
            (0, Level::Normal),
            (849, Level::Normal),
            (850, Level::Saving),
            (919, Level::Saving),
            (920, Level::Shedding),
            (950, Level::Closed),
            (2000, Level::Closed),
            // Down again: each holds on for three percent.
            (949, Level::Closed),
            (920, Level::Closed),
            (919, Level::Shedding),
            (890, Level::Shedding),
            (889, Level::Saving),
            (820, Level::Saving),
            (819, Level::Normal),
            // At once to the top and at once to the bottom.
            (1000, Level::Closed),
            (10, Level::Normal),
        ] {
            assert_eq!(pressure.observe(used, 1000), level, "at {used}");
        }
    }

    #[test]
    fn all_threads_see_the_level_that_was_set() {
        let shared = SharedLevel::default();
        let seen = shared.clone();
        for level in Level::ALL {
            shared.set(level);
            assert_eq!(seen.get(), level);
        }
    }

    proptest! {
        #[test]
        fn a_level_is_never_below_what_was_measured(
            uses in prop::collection::vec(0_u64..1_100, 1..50)
        ) {
            let mut pressure = Pressure::new(Thresholds::default());
            for used in uses {
                let level = pressure.observe(used, 1_000);
                let plain = Pressure::new(Thresholds::default()).observe(used, 1_000);
                prop_assert!(level >= plain);
            }
        }
    }
}
