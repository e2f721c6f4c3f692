//! Memory is given back to the system once configurations have come to rest.
//!
//! What an update leaves behind is free in the allocator and would stay there: threads that do
//! nothing give nothing back. [`run`] is told of each configuration that serves and asks all threads;
//! workers do it when they tend their pools, those of the runtime when they park (`cli` says so to
//! the runtime), and the one that runs this at once. Workers do no more than what is quick; the others,
//! which make configurations, also give back what is free between blocks that stay.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

pub use dataplane_memory::{let_go, tend, tend_thoroughly};

/// Configurations rest when none has come for so long; by then workers have let go of the former one.
const REST: Duration = Duration::from_millis(1500);
/// Where they never rest, it is done this often.
const RESTLESS: Duration = Duration::from_secs(10);
/// Who let go late, such as a request that ran on, is caught by a second time.
const AGAIN: Duration = Duration::from_secs(3);
/// Threads of the runtime that wait for blocking work end after so long: nobody asks them, what they
/// have goes with them, and that is before memory is given back for the last time.
pub const IDLE_THREAD: Duration = Duration::from_secs(1);
const _: () = assert!(IDLE_THREAD.as_millis() < REST.as_millis() + AGAIN.as_millis());
/// More tasks than threads of the runtime, so that each of these wakes up and parks.
const WAKES: usize = 4;

/// Asks for free memory behind each row of configurations; never ends.
pub async fn run(mut changed: watch::Receiver<()>) {
    while changed.changed().await.is_ok() {
        let latest = Instant::now() + RESTLESS;
        loop {
            let rested = (Instant::now() + REST).min(latest);
            match timeout_at(rested, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
        give_back();
        sleep(AGAIN).await;
        give_back();
    }
    // Nobody makes configurations any more.
    std::future::pending().await
}

fn give_back() {
    dataplane_memory::ask();
    tend_thoroughly();
    for _ in 0..WAKES {
        drop(tokio::spawn(async {}));
    }
}
