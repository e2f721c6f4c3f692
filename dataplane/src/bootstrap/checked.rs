//! The second stage: what the written values mean together.
//!
//! Called by `bootstrap.rs` with every key's value at hand. Rules between keys stand here, and the
//! names of the bootstrap file end here: what comes out speaks the terms of the crates it is for.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use dataplane_resilience::admission::Gate;
use dataplane_resilience::health_check;
use dataplane_resilience::pressure::Thresholds;
use dataplane_telemetry::log;
use ir::SecretText;

use super::keys as key;
use super::written::{Origin, Written};
use super::{AdminLimits, AdminSettings, Bootstrap, Drain, Effective};
use crate::{health, overload};

mod access_log;
mod listener;
mod session;
mod traces;

/// Longest identity; it is carried in every message to the control plane.
const NODE_ID_BYTES_MAX: usize = 253;
/// Longest admin token that fits into a request head.
const TOKEN_BYTES_MAX: usize = 4096;

/// Checks the values against each other; faults are left in `written`.
pub(super) fn check(written: &mut Written, env: impl Fn(&str) -> Option<String>) -> Bootstrap {
    let node_id = node_id(written, env);
    let xds = xds(written, &node_id);
    Bootstrap {
        admin: admin(written),
        log: log(written),
        access_log: access_log::settings(written, &node_id),
        access_log_prefix: written.text(&key::ACCESS_ANNOTATIONS).unwrap_or_default(),
        traces: traces::settings(written, &node_id),
        http: http(written),
        streams: streams(written),
        streams_max: written.limit(&key::STREAMS_MAX).map(to_usize),
        udp_sessions_max: written.limit(&key::UDP_SESSIONS_MAX).map(to_usize),
        listener_streams_max: written.limit(&key::LISTENER_STREAMS_MAX).map(to_usize),
        workers: workers(written),
        connections_max: written.limit(&key::CONNECTIONS_MAX).map(to_usize),
        listener_connections_max: written.limit(&key::LISTENER_CONNECTIONS_MAX).map(to_usize),
        client_connections_max: written.limit(&key::CLIENT_CONNECTIONS_MAX).map(to_usize),
        overload: overload(written),
        handshake_timeout: written.duration(&key::TLS_HANDSHAKE),
        proxy_tlvs_max: to_usize(written.number(&key::PROXY_TLVS)),
        listener_defaults: listener::defaults(written),
        rate_limits: listener::rate_limits(written),
        session_secret: session::secret(written),
        session_secret_file: session::file(written),
        zone: written.text(&key::ZONE).unwrap_or_default(),
        plugins_inside: written.flag(&key::PLUGIN_INSIDE),
        plugin_authorities: plugin_authorities(written),
        plugins: plugins(written),
        health: health(written),
        drain: drain(written),
        last_good: last_good(written),
        without_effect: std::mem::take(&mut written.without_effect),
        effective: effective(written),
        node_id,
        xds,
    }
}

fn plugins(written: &Written) -> dataplane_config::PluginLimits {
    dataplane_config::PluginLimits {
        usual: dataplane_config::SandboxLimits {
            memory_bytes: to_usize(written.number(&key::PLUGIN_MEMORY)),
            call_time: written.duration(&key::PLUGIN_TIME),
            fuel: None,
            body_bytes: to_usize(written.number(&key::PLUGIN_BODY)),
            pause: written.duration(&key::PLUGIN_PAUSE),
        },
        memory_bytes_max: to_usize(written.number(&key::PLUGIN_MEMORY_MAX)),
        call_time_max: written.duration(&key::PLUGIN_TIME_MAX),
        fetch: dataplane_config::FetchLimits {
            bytes_max: written.number(&key::PLUGIN_MODULE),
            time_max: written.duration(&key::PLUGIN_FETCH),
        },
        retry_after: written.duration(&key::PLUGIN_RETRY),
    }
}

fn plugin_authorities(written: &mut Written) -> Vec<u8> {
    let Some(path) = written.text(&key::PLUGIN_AUTHORITIES) else {
        return Vec::new();
    };
    match fs::read(&path) {
        Ok(pem) => pem,
        Err(error) => {
            let message = format!("{path} cannot be read: {error}");
            written.fault(key::PLUGIN_AUTHORITIES.name, message);
            Vec::new()
        }
    }
}

fn node_id(written: &mut Written, env: impl Fn(&str) -> Option<String>) -> String {
    if written.text(&key::NODE_ID).is_none()
        && let Some(host) = env("HOSTNAME").filter(|host| !host.trim().is_empty())
    {
        written.resolve(&key::NODE_ID, host.trim(), Origin::Environment("HOSTNAME"));
    }
    let Some(node_id) = written.text(&key::NODE_ID) else {
        written.fault(
            key::NODE_ID.name,
            "is required; set it, or NANTIAN_GW_NODE_ID to the pod's name",
        );
        return String::new();
    };
    if node_id.len() > NODE_ID_BYTES_MAX || !node_id.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!(
            "expected at most {NODE_ID_BYTES_MAX} visible ASCII characters, found {node_id:?}"
        );
        written.fault(key::NODE_ID.name, message);
    }
    node_id
}

fn admin(written: &mut Written) -> AdminSettings {
    let address = written.address(&key::ADMIN_ADDR);
    let address = address.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
    let faults = written.faults.len();
    let token = token(written);
    // A token that was meant and is faulty is told once, not also as a missing one.
    if !address.ip().is_loopback() && token.is_none() && written.faults.len() == faults {
        let message = format!(
            "{address} is not loopback and there is no token; set adminAuth.bearerTokenFile or \
             adminAuth.bearerToken, or listen on 127.0.0.1:{}",
            address.port()
        );
        written.fault(key::ADMIN_ADDR.name, message);
    }
    let tls = pair(written, &key::ADMIN_TLS_CERT, &key::ADMIN_TLS_KEY);
    AdminSettings {
        address,
        token,
        tls,
        changes: !written.flag(&key::ADMIN_READ_ONLY),
        limits: admin_limits(written),
    }
}

fn admin_limits(written: &Written) -> AdminLimits {
    AdminLimits {
        connections_max: to_usize(written.number(&key::ADMIN_CONNECTIONS)),
        large_answers_max: to_usize(written.number(&key::ADMIN_LARGE_ANSWERS)),
        head_bytes_max: to_usize(written.number(&key::ADMIN_HEAD_BYTES)),
        fields_max: to_usize(written.number(&key::ADMIN_FIELDS)),
        body_bytes_max: to_usize(written.number(&key::ADMIN_BODY_BYTES)),
        request_time: written.duration(&key::ADMIN_REQUEST_TIME),
        age_max: written.duration(&key::ADMIN_AGE),
        age_grace: written.duration(&key::ADMIN_AGE_GRACE),
        drain: written.duration(&key::ADMIN_DRAIN),
    }
}

fn token(written: &mut Written) -> Option<SecretText> {
    let inline = written.secret(&key::ADMIN_TOKEN);
    let file = written.text(&key::ADMIN_TOKEN_FILE);
    let (key, token) = match (inline, file) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            let message = "adminAuth.bearerTokenFile is set too, keep one of them";
            written.fault(key::ADMIN_TOKEN.name, message);
            return None;
        }
        (Some(token), None) => (key::ADMIN_TOKEN.name, token),
        (None, Some(path)) => match fs::read_to_string(&path) {
            Ok(text) => (
                key::ADMIN_TOKEN_FILE.name,
                SecretText::new(text.trim().to_owned()),
            ),
            Err(error) => {
                let message = format!("cannot read {path}: {error}; is the Secret mounted?");
                written.fault(key::ADMIN_TOKEN_FILE.name, message);
                return None;
            }
        },
    };
    let text = token.expose();
    let is_sound = (1..=TOKEN_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_sound {
        let message =
            format!("expected a token of 1 to {TOKEN_BYTES_MAX} visible ASCII characters");
        written.fault(key, message);
        return None;
    }
    Some(token)
}

/// Paths of a certificate and its key; one without the other is a fault.
fn pair(
    written: &mut Written,
    certificate: &key::Key,
    key: &key::Key,
) -> Option<(PathBuf, PathBuf)> {
    match (written.text(certificate), written.text(key)) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        (Some(_), None) => {
            written.fault(key.name, format!("is missing beside {}", certificate.name));
            None
        }
        (None, Some(_)) => {
            written.fault(certificate.name, format!("is missing beside {}", key.name));
            None
        }
    }
}

fn log(written: &Written) -> log::Settings {
    let writing = if written.flag(&key::LOG_NON_BLOCKING) {
        log::Writing::Queued {
            lines: to_usize(written.number(&key::LOG_LINES)),
            when_full: if written.flag(&key::LOG_DROP) {
                log::WhenFull::Drop
            } else {
                log::WhenFull::Wait
            },
        }
    } else {
        log::Writing::Direct
    };
    let is_text = written.text(&key::LOG_FORMAT).as_deref() == Some("text");
    log::Settings {
        filter: written.text(&key::LOG_LEVEL).unwrap_or_default(),
        format: if is_text {
            log::Format::Text
        } else {
            log::Format::Json
        },
        writing,
        adds_source: written.flag(&key::LOG_SOURCE),
        includes_target: written.flag(&key::LOG_TARGET),
        includes_thread_ids: written.flag(&key::LOG_THREAD_IDS),
        includes_thread_names: written.flag(&key::LOG_THREAD_NAMES),
        ..log::Settings::default()
    }
}

fn http(written: &Written) -> dataplane_http::Settings {
    use dataplane_http::h1::HeadLimits;
    use dataplane_resilience::retry::Allowance;

    let chunk_extension_bytes_max = to_usize(written.number(&key::CHUNK_EXTENSIONS));
    dataplane_http::Settings {
        request_head: HeadLimits {
            head_bytes_max: to_usize(written.number(&key::HEAD_BYTES_MAX)),
            fields_max: to_usize(written.number(&key::HEAD_FIELDS)),
            target_bytes_max: to_usize(written.number(&key::TARGET_BYTES)),
            chunk_extension_bytes_max,
            ..HeadLimits::REQUEST
        },
        response_head: HeadLimits {
            head_bytes_max: to_usize(written.number(&key::RESPONSE_HEAD_BYTES)),
            fields_max: to_usize(written.number(&key::RESPONSE_FIELDS)),
            chunk_extension_bytes_max,
            ..HeadLimits::RESPONSE
        },
        interim_responses_max: to_usize(written.number(&key::INTERIM_RESPONSES)),
        buffer_bytes: to_usize(written.number(&key::HTTP_BUFFER)),
        first_byte_timeout: written.duration(&key::FIRST_BYTE),
        head_timeout: written.duration(&key::HEAD_TIMEOUT),
        keepalive_idle: written.duration(&key::KEEPALIVE_IDLE),
        keepalive_requests_max: written.limit(&key::KEEPALIVE_REQUESTS).map(to_u32),
        connection_age_max: written
            .limit(&key::CONNECTION_AGE)
            .map(Duration::from_millis),
        drain_idle: written.duration(&key::DRAIN_IDLE),
        request_rest_bytes_max: written.number(&key::REQUEST_REST_BYTES),
        request_rest_time: written.duration(&key::REQUEST_REST_TIME),
        linger: dataplane_http::Linger {
            bytes_max: to_usize(written.number(&key::LINGER_BYTES)),
            silence_max: written.duration(&key::LINGER_SILENCE),
            time_max: written.duration(&key::LINGER_TIME),
        },
        shutdown_time: written.duration(&key::SHUTDOWN_TIME),
        half_closed_max: written.duration(&key::HALF_CLOSED),
        rate_queue_time: written.duration(&key::RATE_QUEUE_TIME),
        rate_queue_max: to_usize(written.number(&key::RATE_QUEUE)),
        h2_idle: written.duration(&key::H2_IDLE),
        h2_streams_max: to_u32(written.number(&key::H2_STREAMS)),
        h2_frames: frames(written),
        h2_pending_resets_max: to_usize(written.number(&key::H2_PENDING_RESETS)),
        h2_early_resets_max: to_usize(written.number(&key::H2_EARLY_RESETS)),
        h2_stream_window: to_u32(written.number(&key::H2_STREAM_WINDOW)),
        h2_connection_window: to_u32(written.number(&key::H2_CONNECTION_WINDOW)),
        request_body_idle: written.duration(&key::BODY_IDLE),
        request_body_bytes_max: written.limit(&key::BODY_BYTES),
        connect_timeout: written.duration(&key::CONNECT_TIMEOUT),
        connect_timeout_elsewhere: connect_elsewhere(written),
        response_start_timeout: written.duration(&key::RESPONSE_START),
        stream_idle: written.duration(&key::STREAM_IDLE),
        tunnel_idle: written.duration(&key::TUNNEL_IDLE),
        write_idle: written.duration(&key::WRITE_IDLE),
        connect_retries: to_u32(written.number(&key::CONNECT_RETRIES)),
        authorization_timeout: written.duration(&key::AUTHORIZATION_TIMEOUT),
        large_heads: Gate::new(None),
        overload_retry_after: written.duration(&key::RETRY_AFTER),
        authorization_bytes_max: to_usize(written.number(&key::AUTHORIZATION_BYTES)),
        mirrors: Gate::new(Some(to_usize(written.number(&key::MIRRORS)))),
        mirror_timeout: written.duration(&key::MIRROR_TIMEOUT),
        mirror_buffer_bytes: to_usize(written.number(&key::MIRROR_BUFFER)),
        mirror_answer_bytes_max: to_usize(written.number(&key::MIRROR_ANSWER)),
        retry_after_max: written.duration(&key::RETRY_PAUSE),
        discard_bytes_max: to_usize(written.number(&key::DISCARD_BYTES)),
        discard_time: written.duration(&key::DISCARD_TIME),
        retry_budget: written.flag(&key::RETRY_BUDGET).then(|| Allowance {
            ratio_percent: to_u32(written.number(&key::RETRY_RATIO)),
            burst: to_u32(written.number(&key::RETRY_BURST)),
        }),
        request_body_buffer_bytes: to_usize(written.number(&key::BODY_BUFFER)),
        ai_body_bytes_max: to_usize(written.number(&key::AI_BODY)),
        ai_event_bytes_max: to_usize(written.number(&key::AI_EVENT)),
        ai_retry_pause_max: written.duration(&key::AI_RETRY_PAUSE),
        ai_queue_time: written.duration(&key::AI_QUEUE_TIME),
        ai_ignored_members: to_usize(written.number(&key::AI_IGNORED)),
        plugin_answer_bytes_max: to_usize(written.number(&key::PLUGIN_ANSWER)),
        plugin_call_idle: written.duration(&key::PLUGIN_CALL_IDLE),
        tunnel_drain: written.duration(&key::TUNNEL_DRAIN),
        upstream_idle_max: to_usize(written.number(&key::POOL_SIZE)),
        upstream_idle_timeout: written.duration(&key::UPSTREAM_IDLE),
        upstream_h2_streams_max: to_u16(written.number(&key::UPSTREAM_H2_STREAMS)),
        upstream_h2_stream_window: to_u32(written.number(&key::UPSTREAM_H2_WINDOW)),
        upstream_h2_ping_after: written.duration(&key::UPSTREAM_H2_PING),
        upstream_h2_ping_timeout: written.duration(&key::UPSTREAM_H2_PONG),
        upstream_limits: dataplane_http::UpstreamLimits {
            requests: written.limit(&key::BACKEND_REQUESTS).map(to_usize),
            connections: written.limit(&key::BACKEND_CONNECTIONS).map(to_usize),
            pending: written.limit(&key::BACKEND_PENDING).map(to_usize),
        },
        upstream_connections: Gate::new(None),
        inflight: dataplane_http::InflightLimits {
            global: written.limit(&key::INFLIGHT_GLOBAL).map(to_usize),
            listener: written.limit(&key::INFLIGHT_LISTENER).map(to_usize),
            route: written.limit(&key::INFLIGHT_ROUTE).map(to_usize),
        },
    }
}

fn frames(written: &Written) -> dataplane_http::frame_guard::FrameLimits {
    dataplane_http::frame_guard::FrameLimits {
        control_max: to_u32(written.number(&key::H2_CONTROL_FRAMES)),
        priority_per_stream_max: to_u32(written.number(&key::H2_PRIORITY_FRAMES)),
        window_updates_per_data_max: to_u32(written.number(&key::H2_WINDOW_UPDATES)),
        empty_in_row_max: to_u32(written.number(&key::H2_EMPTY_FRAMES)),
        empty_data_max: to_u32(written.number(&key::H2_EMPTY_DATA)),
    }
}

fn last_good(written: &mut Written) -> Option<PathBuf> {
    if !written.flag(&key::LAST_GOOD) {
        return None;
    }
    let path = written.text(&key::LAST_GOOD_PATH).map(PathBuf::from);
    if path.as_ref().is_none_or(|path| path.file_name().is_none()) {
        let message = "names no file; write a path in a folder that is there";
        written.fault(key::LAST_GOOD_PATH.name, message);
    }
    path
}

fn percent(written: &Written, key: &key::Key) -> u8 {
    u8::try_from(written.number(key)).unwrap_or(u8::MAX)
}

fn overload(written: &mut Written) -> overload::Settings {
    let thresholds = Thresholds {
        saving: percent(written, &key::MEMORY_SAVING),
        shedding: percent(written, &key::MEMORY_SHEDDING),
        closed: percent(written, &key::MEMORY_CLOSED),
        slack: percent(written, &key::MEMORY_SLACK),
    };
    if thresholds.saving > thresholds.shedding || thresholds.shedding > thresholds.closed {
        let message = format!(
            "expected {} <= {} <= {}, found {}, {} and {}",
            key::MEMORY_SAVING.name,
            key::MEMORY_SHEDDING.name,
            key::MEMORY_CLOSED.name,
            thresholds.saving,
            thresholds.shedding,
            thresholds.closed
        );
        written.fault(key::MEMORY_SHEDDING.name, message);
    }
    let limit = written.limit(&key::MEMORY_LIMIT);
    overload::Settings {
        memory: written.flag(&key::MEMORY_ENABLED).then_some(thresholds),
        source: overload::Source::of_this_process(limit),
        interval: written.duration(&key::MEMORY_INTERVAL),
        large_heads_percent: percent(written, &key::LARGE_HEADS),
        descriptors: overload::descriptors::Shares {
            reserve: written.number(&key::DESCRIPTORS_KEPT),
            clients_percent: written.number(&key::DESCRIPTORS_CLIENTS),
        },
    }
}

fn streams(written: &Written) -> dataplane_stream::Settings {
    let per_backend = written.limit(&key::BACKEND_STREAMS_MAX).map(to_usize);
    dataplane_stream::Settings {
        upstream_limits: dataplane_http::UpstreamLimits {
            requests: per_backend,
            connections: per_backend,
            pending: None,
        },
        upstream_connections: Gate::new(None),
        linger_time: written.duration(&key::TCP_LINGER),
        linger_bytes_max: to_usize(written.number(&key::TCP_LINGER_BYTES)),
        hello_timeout: written.duration(&key::TLS_HANDSHAKE),
        hello_bytes_max: to_usize(written.number(&key::HELLO_BYTES)),
        connect_timeout: written.duration(&key::CONNECT_TIMEOUT),
        connect_timeout_elsewhere: connect_elsewhere(written),
        connect_retries: to_u32(written.number(&key::CONNECT_RETRIES)),
        buffer_bytes: to_usize(written.number(&key::TCP_BUFFER)),
        idle: written.limit(&key::TCP_IDLE).map(Duration::from_millis),
        write_idle: written
            .limit(&key::TCP_WRITE_IDLE)
            .map(Duration::from_millis),
        age_max: written.limit(&key::TCP_AGE).map(Duration::from_millis),
        drain: written.duration(&key::DRAIN_TOTAL),
        upstream_keepalive: keepalive(
            written,
            &key::UPSTREAM_KEEPALIVE,
            &key::UPSTREAM_KEEPALIVE_PARTS,
        ),
        downstream_keepalive: keepalive(
            written,
            &key::DOWNSTREAM_KEEPALIVE,
            &key::DOWNSTREAM_KEEPALIVE_PARTS,
        ),
        udp: udp(written),
    }
}

fn connect_elsewhere(written: &Written) -> Option<Duration> {
    let limit = written.limit(&key::CONNECT_ELSEWHERE);
    limit.map(Duration::from_millis)
}

fn udp(written: &Written) -> dataplane_stream::UdpSettings {
    dataplane_stream::UdpSettings {
        idle: written.duration(&key::UDP_IDLE),
        leaving_idle: written.duration(&key::UDP_DRAIN_IDLE),
        queue: to_usize(written.number(&key::UDP_QUEUE)),
        queue_bytes: to_usize(written.number(&key::UDP_QUEUE_BYTES)),
        replies: to_usize(written.number(&key::UDP_REPLIES)),
        reply_bytes: to_usize(written.number(&key::UDP_REPLY_BYTES)),
        receive_buffer: to_usize(written.number(&key::UDP_RECEIVE_BUFFER)),
        listener_sessions_max: written.limit(&key::LISTENER_UDP_SESSIONS_MAX).map(to_usize),
        listener_sessions_per_second: written.limit(&key::LISTENER_UDP_SESSION_RATE),
        source_sessions_per_second: written.limit(&key::SOURCE_UDP_SESSION_RATE),
        datagrams_per_second: written.limit(&key::DATAGRAM_RATE),
        listener_datagrams_per_second: written.limit(&key::LISTENER_DATAGRAM_RATE),
        source_datagrams_per_second: written.limit(&key::SOURCE_DATAGRAM_RATE),
        sources_max: to_usize(written.number(&key::UDP_SOURCES)),
    }
}

/// Probes of the kernel; `parts` are idle time, interval, count and the limit for sent bytes.
fn keepalive(
    written: &Written,
    is_on: &key::Key,
    parts: &[&key::Key; 4],
) -> Option<dataplane_stream::Keepalive> {
    let [idle, interval, probes, user_timeout] = parts;
    written.flag(is_on).then(|| dataplane_stream::Keepalive {
        idle: written.duration(idle),
        interval: written.duration(interval),
        probes: to_u32(written.number(probes)),
        user_timeout: written.limit(user_timeout).map(Duration::from_millis),
    })
}

fn workers(written: &Written) -> usize {
    match to_usize(written.number(&key::WORKERS)) {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

fn health(written: &Written) -> health::Settings {
    health::Settings {
        checks_all: written.flag(&key::HEALTH_ALL),
        defaults: health_check::Settings {
            interval: written.duration(&key::HEALTH_INTERVAL),
            timeout: written.duration(&key::HEALTH_TIMEOUT),
            unhealthy_threshold: to_u32(written.number(&key::HEALTH_UNHEALTHY)),
            healthy_threshold: to_u32(written.number(&key::HEALTH_HEALTHY)),
        },
    }
}

fn drain(written: &mut Written) -> Drain {
    let total = written.duration(&key::DRAIN_TOTAL);
    let min_accept = written.duration(&key::DRAIN_ACCEPT);
    if written.origin(&key::DRAIN_ACCEPT) == Origin::Default {
        // Whoever shortens the whole leaves time for requests to finish, too.
        let min_accept = min_accept.min(total / 2);
        return Drain { min_accept, total };
    }
    if min_accept > total {
        let message = format!(
            "{} ms is longer than {} ({} ms)",
            min_accept.as_millis(),
            key::DRAIN_TOTAL.name,
            total.as_millis()
        );
        written.fault(key::DRAIN_ACCEPT.name, message);
    }
    Drain { min_accept, total }
}

fn xds(written: &mut Written, node_id: &str) -> dataplane_xds::Settings {
    let address = control_plane_addr(written);
    let backoff_initial = written.duration(&key::XDS_BACKOFF);
    let backoff_max = written.duration(&key::XDS_BACKOFF_MAX);
    if backoff_initial > backoff_max {
        let message = format!("is longer than {}", key::XDS_BACKOFF_MAX.name);
        written.fault(key::XDS_BACKOFF.name, message);
    }
    dataplane_xds::Settings {
        cluster: written.text(&key::CLUSTER).unwrap_or_default(),
        tls: xds_tls(written, &address),
        connect_timeout: written.duration(&key::XDS_CONNECT),
        keepalive_interval: written.duration(&key::XDS_KEEPALIVE),
        keepalive_timeout: written.duration(&key::XDS_KEEPALIVE_TIMEOUT),
        message_bytes_max: to_usize(written.number(&key::XDS_MESSAGE)),
        timing: dataplane_xds::Timing {
            backoff_initial,
            backoff_max,
            stale_stream_timeout: written.duration(&key::XDS_STALE),
            freshness_timeout: written.duration(&key::XDS_FRESHNESS),
            health_interval: written.duration(&key::XDS_HEALTH),
            report_interval: written.duration(&key::XDS_REPORT),
        },
        ..dataplane_xds::Settings::new(address, node_id)
    }
}

fn control_plane_addr(written: &mut Written) -> String {
    let Some(address) = written.text(&key::CONTROL_PLANE_ADDR) else {
        written.fault(
            key::CONTROL_PLANE_ADDR.name,
            "is required; set it, or NANTIAN_GW_CONTROL_PLANE_ADDR, as in http://127.0.0.1:18080",
        );
        return String::new();
    };
    let (scheme, rest) = address.split_once("://").unwrap_or(("http", &address));
    let authority: Option<http::uri::Authority> = rest.trim_end_matches('/').parse().ok();
    let is_known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let is_sound = authority.is_some_and(|it| !it.host().is_empty() && !it.as_str().contains('@'));
    if !is_known || !is_sound {
        let message = format!("expected a URL as in http://127.0.0.1:18080, found {address:?}");
        written.fault(key::CONTROL_PLANE_ADDR.name, message);
    }
    address
}

fn xds_tls(written: &mut Written, address: &str) -> Option<dataplane_xds::TlsFiles> {
    if !written.flag(&key::XDS_TLS) {
        if address.to_ascii_lowercase().starts_with("https://") {
            let message = "is false, but controlPlaneAddr begins with https; make both agree";
            written.fault(key::XDS_TLS.name, message);
        }
        return None;
    }
    let identity = pair(written, &key::XDS_CERT, &key::XDS_KEY);
    let Some(ca) = written.text(&key::XDS_CA) else {
        written.fault(
            key::XDS_CA.name,
            "is required for TLS to the control plane; set it, or xdsTls.enabled: false for plain text",
        );
        return None;
    };
    Some(dataplane_xds::TlsFiles {
        ca: ca.into(),
        identity,
        domain_name: written.text(&key::XDS_DOMAIN),
    })
}

fn effective(written: &Written) -> Vec<Effective> {
    let entry = |key: &&'static key::Key| Effective {
        key: key.name,
        value: written.value(key).to_string(),
        origin: written.origin(key),
    };
    key::ALL.iter().map(entry).collect()
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn to_u16(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn to_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
