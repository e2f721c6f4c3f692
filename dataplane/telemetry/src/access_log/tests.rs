//! Tests of the access log as a whole: what reaches the file, and what a broken sink costs.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn record(status: u16, path: &[u8]) -> Record<'_> {
    Record {
        timestamp: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        latency: Duration::from_millis(1),
        listener: "web",
        method: "GET",
        host: b"a.example",
        path,
        status,
        ..Record::unknown()
    }
}

fn settings(path: impl Into<PathBuf>) -> Settings {
    Settings {
        sink: Sink::File(path.into()),
        ..Settings::default()
    }
}

/// The paths of the lines in a file, each checked to be whole.
fn paths(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    text.lines()
        .map(|line| value(line)["path"].as_str().unwrap().to_owned())
        .collect()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn lines_of_all_workers_arrive_whole_and_stop_flushes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let settings = settings(&file);
    let counts = Arc::clone(&settings.counts);
    let log = AccessLog::start(settings).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let writer = log.writer();
            scope.spawn(move || {
                for i in 0..500 {
                    writer.write(&record(200, format!("/{worker}/{i}").as_bytes()));
                }
            });
        }
    });
    assert!(log.stop(PATIENCE));
    let mut seen = paths(&file);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 2000);
    assert_eq!(
        (counts.lines.value(), counts.dropped_lines.value()),
        (2000, 0)
    );
    assert_eq!(counts.queue_bytes.value(), 0);
}

#[test]
fn a_line_older_than_the_limit_goes_out_with_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let log = AccessLog::start(settings(&file)).unwrap();
    let writer = log.writer();
    let first = record(200, b"/first");
    writer.write(&first);
    writer.write(&Record {
        timestamp: first.timestamp + AGE_MAX,
        ..record(200, b"/early")
    });
    assert_eq!(writer.local.borrow().lines, 2);
    writer.write(&Record {
        timestamp: first.timestamp + AGE_MAX + Duration::from_millis(1),
        ..record(200, b"/late")
    });
    assert_eq!(writer.local.borrow().lines, 0);
    wait_until("three lines are in the file", || paths(&file).len() == 3);
}

#[test]
fn flush_hands_on_what_an_idle_worker_holds() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let log = AccessLog::start(settings(&file)).unwrap();
    let writer = log.writer();
    writer.write(&record(200, b"/one"));
    writer.flush();
    wait_until("the line is in the file", || paths(&file) == ["/one"]);
}

#[test]
fn what_broke_off_is_always_written_unless_the_client_left() {
    let directory = tempfile::tempdir().unwrap();
    let log = AccessLog::start(Settings {
        sample_rate: 0.0,
        ..settings(directory.path().join("access.log"))
    });
    let writer = log.unwrap().writer();
    for (status, reason, is_taken) in [
        (200, Reason::Ok, false),
        (200, Reason::UpstreamReset, true),
        (200, Reason::UpstreamTimeout, true),
        (200, Reason::Internal, true),
        (200, Reason::ClientAborted, false),
        (0, Reason::ClientAborted, false),
        (200, Reason::PluginReply, false),
        (404, Reason::RouteNotFound, false),
        (500, Reason::Ok, true),
    ] {
        let taken = writer.takes(status, reason, None, None);
        assert_eq!(taken, is_taken, "{status} {reason}");
    }
    for (code, is_taken) in [("0", false), ("5", false), ("12", true), ("14", true)] {
        let grpc_status = Some(GrpcStatus::read(code.as_bytes()));
        let taken = writer.takes(200, Reason::Ok, grpc_status, None);
        assert_eq!(taken, is_taken, "gRPC {code}");
    }
}

#[test]
fn sampling_keeps_its_share_and_every_server_error() {
    for (rate, low, high) in [(0.0, 0, 0), (0.25, 2200, 2800), (1.0, 10_000, 10_000)] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("access.log");
        let log = AccessLog::start(Settings {
            sample_rate: rate,
            ..settings(&file)
        })
        .unwrap();
        let writer = log.writer();
        for _ in 0..10_000 {
            writer.write(&record(200, b"/ok"));
        }
        for _ in 0..50 {
            writer.write(&record(503, b"/error"));
        }
        drop(writer);
        assert!(log.stop(PATIENCE));
        let seen = paths(&file);
        let errors = seen.iter().filter(|path| *path == "/error").count();
        assert_eq!(errors, 50, "{rate}");
        let rest = seen.len() - errors;
        assert!((low..=high).contains(&rest), "{rate}: {rest}");
    }
}

#[test]
fn a_rate_outside_its_range_means_all_or_none() {
    for (rate, threshold) in [(-1.0, 0), (f64::NAN, 0), (2.0, u64::MAX), (1.0, u64::MAX)] {
        assert_eq!(sampling_threshold(rate), threshold, "{rate}");
    }
}

#[test]
fn reopening_follows_a_rotated_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let moved = directory.path().join("access.log.1");
    let log = AccessLog::start(settings(&file)).unwrap();
    let writer = log.writer();
    writer.write(&record(200, b"/before"));
    writer.flush();
    wait_until("the first line is written", || paths(&file).len() == 1);
    fs::rename(&file, &moved).unwrap();
    log.reopen();
    writer.write(&record(200, b"/after"));
    writer.flush();
    assert!(log.stop(PATIENCE));
    assert_eq!(paths(&moved), ["/before"]);
    assert_eq!(paths(&file), ["/after"]);
}

#[test]
fn a_file_of_its_full_size_is_put_aside_and_the_oldest_goes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let settings = Settings {
        rotation: Rotation {
            file_bytes_max: 1,
            files_max: 2,
        },
        ..settings(&file)
    };
    let counts = Arc::clone(&settings.counts);
    let log = AccessLog::start(settings).unwrap();
    let writer = log.writer();
    for number in 0..4_u64 {
        writer.write(&record(200, format!("/{number}").as_bytes()));
        writer.flush();
        wait_until("the line is written", || counts.lines.value() == number + 1);
    }
    drop(writer);
    assert!(log.stop(PATIENCE));
    assert_eq!(paths(&directory.path().join("access.log.1")), ["/3"]);
    assert_eq!(paths(&directory.path().join("access.log.2")), ["/2"]);
    assert!(!directory.path().join("access.log.3").exists());
    assert_eq!(
        (counts.dropped_lines.value(), counts.sink_errors.value()),
        (0, 0)
    );
}

#[test]
fn what_a_route_says_holds_for_its_lines() {
    let text = |format: &str| Style::Text(Arc::new(Template::parse(format).unwrap()));
    let own = |is_enabled, sample_rate, style| Override {
        is_enabled,
        sample_rate,
        style,
    };
    let cases = [
        (own(None, None, None), 200, Some("status")),
        (own(Some(false), None, None), 200, None),
        (own(Some(false), None, None), 500, None),
        (own(Some(true), None, None), 200, Some("status")),
        (own(None, Some(0.0), None), 200, None),
        (own(None, Some(0.0), None), 503, Some("status")),
        (
            own(None, None, Some(text("%METHOD% %STATUS%"))),
            200,
            Some("GET 200"),
        ),
    ];
    for (own, status, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("access.log");
        let log = AccessLog::start(settings(&file)).unwrap();
        let writer = log.writer();
        if writer.takes(status, Reason::Ok, None, Some(&own)) {
            writer.write_taken(&record(status, b"/x"), Some(&own));
        }
        drop(writer);
        assert!(log.stop(PATIENCE));
        let written = fs::read_to_string(&file).unwrap();
        let is_as_expected = match expected {
            None => written.is_empty(),
            Some(part) => written.contains(part) && written.ends_with('\n'),
        };
        assert!(is_as_expected, "{own:?} {status}: {written}");
    }
}

#[test]
fn a_full_disk_is_counted_and_nothing_waits() {
    let settings = settings("/dev/full");
    let counts = Arc::clone(&settings.counts);
    let log = AccessLog::start(settings).unwrap();
    let writer = log.writer();
    for _ in 0..1000 {
        writer.write(&record(200, b"/lost"));
    }
    drop(writer);
    assert!(log.stop(PATIENCE));
    assert_eq!(
        (counts.lines.value(), counts.dropped_lines.value()),
        (0, 1000)
    );
    assert!(counts.sink_errors.value() > 0);
}

#[test]
fn a_missing_directory_is_counted_and_used_once_it_appears() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("later/access.log");
    let settings = settings(&file);
    let counts = Arc::clone(&settings.counts);
    let log = AccessLog::start(settings).unwrap();
    wait_until("the fault is counted", || counts.sink_errors.value() == 1);
    let writer = log.writer();
    writer.write(&record(200, b"/lost"));
    writer.flush();
    wait_until("the line is dropped", || counts.dropped_lines.value() == 1);
    fs::create_dir(directory.path().join("later")).unwrap();
    log.reopen();
    writer.write(&record(200, b"/kept"));
    writer.flush();
    assert!(log.stop(PATIENCE));
    assert_eq!(paths(&file), ["/kept"]);
}

#[test]
fn a_pipe_nobody_reads_fills_the_queue_and_no_more() {
    let (mut reader, pipe) = io::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pipe));
    let settings = Settings {
        queue_bytes: 100_000,
        ..settings(path)
    };
    let counts = Arc::clone(&settings.counts);
    let log = AccessLog::start(settings).unwrap();
    let writer = log.writer();
    let started = Instant::now();
    for _ in 0..20_000 {
        writer.write(&record(200, b"/x"));
    }
    writer.flush();
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    assert!(
        counts.dropped_lines.value() > 10_000,
        "{:?}",
        counts.dropped_lines
    );
    assert!(counts.queue_bytes.value() <= 100_000);
    assert!(
        !log.stop(Duration::from_millis(50)),
        "the thread cannot end while the pipe is full"
    );

    // The reader comes back: what was kept arrives, and all lines are accounted for.
    drop(pipe);
    let consumer = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text.lines().count()
    });
    assert!(log.stop(PATIENCE));
    let read = u64::try_from(consumer.join().unwrap()).unwrap();
    assert_eq!(read, counts.lines.value());
    assert_eq!(counts.lines.value() + counts.dropped_lines.value(), 20_000);
}

#[test]
fn a_disabled_log_does_nothing() {
    let log = AccessLog::disabled();
    let writer = log.writer();
    writer.write(&record(500, b"/x"));
    writer.flush();
    log.reopen();
    assert_eq!(writer.local.borrow().buffer.capacity(), 0);
    assert!(log.stop(Duration::ZERO));
}

#[test]
fn lines_after_the_stop_are_counted_as_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path().join("access.log"));
    let counts = Arc::clone(&settings.counts);
    let log = AccessLog::start(settings).unwrap();
    assert!(log.stop(PATIENCE));
    let writer = log.writer();
    writer.write(&record(200, b"/x"));
    drop(writer);
    assert_eq!(counts.dropped_lines.value(), 1);
}
