//! Waiting for a condition with a deadline, instead of sleeping and hoping.
//!
//! Used by every test that depends on something happening on another task or thread. A condition
//! that does not come true fails the test; nothing here waits without an end.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Long enough for anything on loopback, even on a busy machine that stands still for a while; shorter
/// than most times that a gateway is given by default, so that a test which gives it less sees those.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Returns once `condition` says true; asks again every few milliseconds.
///
/// # Panics
/// When it has not come true, or has not answered, within `deadline`.
#[expect(
    clippy::panic,
    reason = "a test whose condition never comes true has failed"
)]
pub async fn until<F, C>(deadline: Duration, mut condition: F)
where
    F: FnMut() -> C,
    C: Future<Output = bool>,
{
    let end = Instant::now() + deadline;
    while !matches!(timeout_at(end, condition()).await, Ok(true)) {
        if Instant::now() >= end {
            panic!("the condition did not come true within {deadline:?}");
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// What `look` finds once it finds something; asks again every few milliseconds.
///
/// # Panics
/// When it has found nothing within [`DEADLINE`]; `what` says what was looked for.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    within(what, search).await
}

/// The output of `work`, which must come within [`DEADLINE`].
///
/// # Panics
/// When it does not.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .unwrap_or_else(|_| fail(what))
}

#[expect(clippy::panic, reason = "a test that waits in vain has failed")]
fn fail(what: &str) -> ! {
    panic!("{what}: nothing came within {DEADLINE:?}")
}
