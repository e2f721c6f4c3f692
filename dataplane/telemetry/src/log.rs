//! The process's own log: events of `tracing`, filtered per module, as JSON or text.
//!
//! [`init`] is called once, before anything else starts; the handle it gives changes the filter
//! while the process runs and flushes at the end. Events are formatted where they happen and
//! written by a thread of their own, so a slow reader of the output costs lines, not time. Requests
//! are not logged here; that is the access log's work.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, ParseError};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;

use crate::metrics::LogMetrics;
use crate::queue::{Chunk, Limits, Queue, Work};

/// Bytes that may wait for the output, whatever the number of lines.
const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How the log is written.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Levels per module, as in `info,hyper=warn`.
    pub filter: String,
    /// What a line looks like.
    pub format: Format,
    /// Where lines go.
    pub output: Output,
    /// Who writes them.
    pub writing: Writing,
    /// Adds file and line of the event.
    pub adds_source: bool,
    /// Adds the module of the event.
    pub includes_target: bool,
    /// Adds the thread's number.
    pub includes_thread_ids: bool,
    /// Adds the thread's name.
    pub includes_thread_names: bool,
    /// Where lost lines are counted; `Metrics::log` belongs here.
    pub counts: Arc<LogMetrics>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: Format::Json,
            output: Output::Stderr,
            writing: Writing::Queued {
                lines: 65_536,
                when_full: WhenFull::Drop,
            },
            adds_source: false,
            includes_target: false,
            includes_thread_ids: false,
            includes_thread_names: false,
            counts: Arc::default(),
        }
    }
}

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line, the event's fields beside `timestamp`, `level` and `message`.
    Json,
    /// For people.
    Text,
}

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Who writes the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// A thread of its own, behind a queue.
    Queued {
        /// How many lines may wait.
        lines: usize,
        /// What happens to a line that does not fit.
        when_full: WhenFull,
    },
    /// The thread in which the event happens; it waits for the output.
    Direct,
}

/// What happens to a line that does not fit into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It is lost and counted.
    Drop,
    /// Its thread waits.
    Wait,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// See [`FilterError`].
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// There can be no thread to write.
    #[error("the thread that writes the log did not start")]
    Thread(#[source] io::Error),
    /// Another subscriber is in place.
    #[error("a log was set up in this process before")]
    AlreadySet,
}

/// A filter that cannot be read; the one before it stays.
#[derive(Debug, thiserror::Error)]
#[error("log filter {filter:?} is not valid; write levels per module as in `info,hyper=warn`")]
pub struct FilterError {
    filter: String,
    /// Absent where a word that should be a level is none.
    source: Option<ParseError>,
}

/// Sets up the log of this process.
pub fn init(settings: Settings) -> Result<LogHandle, InitError> {
    let output: Box<dyn Write + Send> = match settings.output {
        Output::Stdout => Box::new(io::stdout()),
        Output::Stderr => Box::new(io::stderr()),
    };
    let (subscriber, handle) = build(settings, output)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| InitError::AlreadySet)?;
    Ok(handle)
}

/// Changes and ends the log; clones are the same log.
#[derive(Clone, Debug)]
pub struct LogHandle {
    reload: reload::Handle<EnvFilter, Registry>,
    /// What the filter in use was read from.
    filter: Arc<Mutex<String>>,
    /// Absent when events are written directly.
    queue: Option<Arc<Queue>>,
}

impl LogHandle {
    /// Replaces the filter; a filter that cannot be read changes nothing.
    pub fn set_filter(&self, filter: &str) -> Result<(), FilterError> {
        let parsed = parse(filter)?;
        let mut current = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        // Fails only when the subscriber is gone, and with it everything to be filtered.
        if self.reload.reload(parsed).is_ok() {
            filter.clone_into(&mut current);
        }
        Ok(())
    }

    /// The filter in use, as it was written.
    pub fn filter(&self) -> String {
        self.filter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Writes out what waits and ends the writer thread; false when `patience` ran out first.
    pub fn stop(&self, patience: Duration) -> bool {
        self.queue
            .as_ref()
            .is_none_or(|queue| queue.drain(patience))
    }
}

fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    // A misspelt level would be taken for a module's name, and let everything of it through.
    let is_level = |word: &str| word.is_empty() || word.parse::<LevelFilter>().is_ok();
    let is_module = |word: &str| word.contains(['=', ':', '[', '_']);
    if !filter
        .split(',')
        .map(str::trim)
        .all(|word| is_level(word) || is_module(word))
    {
        return Err(FilterError {
            filter: filter.to_owned(),
            source: None,
        });
    }
    // The filter can come from the admin API: values are compared as text, never as patterns.
    EnvFilter::builder()
        .with_regex(false)
        .parse(filter)
        .map_err(|source| FilterError {
            filter: filter.to_owned(),
            source: Some(source),
        })
}

/// The subscriber that writes to `output`, and its handle.
fn build(
    settings: Settings,
    output: Box<dyn Write + Send>,
) -> Result<(impl Subscriber + Send + Sync, LogHandle), InitError> {
    let (filter, reload) = reload::Layer::new(parse(&settings.filter)?);
    let lines = Lines::start(&settings, output)?;
    let handle = LogHandle {
        reload,
        filter: Arc::new(Mutex::new(settings.filter.clone())),
        queue: lines.queue().cloned(),
    };
    let subscriber = Registry::default()
        .with(filter)
        .with(layer(&settings, lines));
    Ok((subscriber, handle))
}

fn layer<S>(settings: &Settings, lines: Lines) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = fmt::layer()
        .with_writer(lines)
        .with_ansi(false)
        .with_target(settings.includes_target)
        .with_file(settings.adds_source)
        .with_line_number(settings.adds_source)
        .with_thread_ids(settings.includes_thread_ids)
        .with_thread_names(settings.includes_thread_names);
    match settings.format {
        Format::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
        Format::Text => layer.boxed(),
    }
}

/// Takes formatted lines to where they are written.
enum Lines {
    Queued {
        queue: Arc<Queue>,
        when_full: WhenFull,
        counts: Arc<LogMetrics>,
    },
    Direct {
        output: Mutex<Box<dyn Write + Send>>,
        counts: Arc<LogMetrics>,
    },
}

impl Lines {
    fn start(settings: &Settings, output: Box<dyn Write + Send>) -> Result<Self, InitError> {
        let counts = Arc::clone(&settings.counts);
        let Writing::Queued { lines, when_full } = settings.writing else {
            return Ok(Self::Direct {
                output: Mutex::new(output),
                counts,
            });
        };
        let limits = Limits {
            bytes: QUEUE_BYTES_MAX,
            lines: lines as u64,
        };
        let queue = Arc::new(Queue::new(limits));
        let thread = std::thread::Builder::new().name("log".to_owned());
        thread
            .spawn({
                let (queue, counts) = (Arc::clone(&queue), Arc::clone(&counts));
                move || write_lines(&queue, output, &counts)
            })
            .map_err(InitError::Thread)?;
        Ok(Self::Queued {
            queue,
            when_full,
            counts,
        })
    }

    fn queue(&self) -> Option<&Arc<Queue>> {
        match self {
            Self::Queued { queue, .. } => Some(queue),
            Self::Direct { .. } => None,
        }
    }

    /// Takes one event, formatted; a fault is counted and never told to the caller.
    fn take(&self, line: &[u8]) {
        let (taken, counts) = match self {
            Self::Queued {
                queue,
                when_full,
                counts,
            } => {
                let chunk = Chunk {
                    bytes: line.to_vec(),
                    lines: 1,
                };
                let pushed = match when_full {
                    WhenFull::Drop => queue.push(chunk),
                    WhenFull::Wait => queue.push_waiting(chunk),
                };
                (pushed.is_ok(), counts)
            }
            Self::Direct { output, counts } => {
                let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
                (
                    output.write_all(line).and_then(|()| output.flush()).is_ok(),
                    counts,
                )
            }
        };
        if !taken {
            counts.dropped_lines.increment();
        }
    }
}

/// The body of the writer thread. It logs nothing, since that would come back to it.
fn write_lines(queue: &Queue, mut output: Box<dyn Write + Send>, counts: &LogMetrics) {
    loop {
        match queue.next() {
            Work::Write(chunk) => {
                let written = output.write_all(&chunk.bytes).and_then(|()| output.flush());
                if written.is_err() {
                    counts.dropped_lines.add(chunk.lines);
                }
            }
            Work::Reopen => {}
            Work::Stop => break,
        }
    }
    counts.dropped_lines.add(queue.finish());
}

/// What the formatting layer writes one event to; it does so in a single call.
#[derive(Clone, Copy)]
struct LineWriter<'a>(&'a Lines);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.take(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter(self)
    }
}

#[cfg(test)]
mod tests;
