//! How long changes are gathered before they are handed out.
//!
//! A row of changes is one change once nothing has come for [`QUIET`], and no later than
//! `reconcilerRunner.settleDelay` after its first. Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Changes that come this close together are one change.
const QUIET: Duration = Duration::from_millis(4);

/// A row of changes.
pub(super) struct Window {
    pause: Duration,
    quiet: Instant,
    latest: Instant,
}

impl Window {
    /// Begins with the first change.
    pub(super) fn opened(now: Instant, settle_delay: Duration) -> Self {
        let pause = QUIET.min(settle_delay);
        Self {
            pause,
            quiet: now + pause,
            latest: now + settle_delay,
        }
    }

    /// Another change has come. What leaves the view as it is, as most events of a status do, is no
    /// reason to wait longer and does not come here.
    pub(super) fn moved(&mut self, now: Instant) {
        self.quiet = now + self.pause;
    }

    /// When the row is handed out if nothing more comes.
    pub(super) fn end(&self) -> Instant {
        self.quiet.min(self.latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a row of changes at these times is handed out, in milliseconds behind the first.
    fn handed_out(changes: &[u64], settle_delay: u64) -> u128 {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut window = Window::opened(at(0), Duration::from_millis(settle_delay));
        for change in changes.iter().map(|millis| at(*millis)) {
            if change >= window.end() {
                break;
            }
            window.moved(change);
        }
        (window.end() - start).as_millis()
    }

    #[test]
    fn a_row_of_changes_ends_when_it_is_quiet_and_no_later_than_the_settle_delay() {
        let every_third: Vec<u64> = (1..100).map(|number| number * 3).collect();
        for (changes, settle_delay, expected) in [
            (&[][..], 20, 4),
            (&[3, 6], 20, 10),
            // Too late to belong to it.
            (&[3, 8], 20, 7),
            (&every_third, 20, 20),
            (&every_third, 100, 100),
            // The delay may be shorter than the silence.
            (&[], 2, 2),
            (&[1], 2, 2),
        ] {
            let handed_out = handed_out(changes, settle_delay);
            assert_eq!(handed_out, expected, "{changes:?} within {settle_delay}");
        }
    }
}
