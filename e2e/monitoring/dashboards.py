#!/usr/bin/env python3
"""The Grafana dashboards of the chart, written from the tables below.

    e2e/monitoring/dashboards.py           writes charts/nantian-gw/files/dashboards/*.json
    e2e/monitoring/dashboards.py --check   says whether they are stale, and ends with 1 if so

Every name and label of a query is held against docs/reference/metrics.md, which is written from the
declarations of the data plane, and against SHIM below, which `run` holds against a shim that runs.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "charts/nantian-gw/files/dashboards"
DP = "nantian_gateway_dataplane_"
CP = "nantian_gateway_controlplane_"
SN = "nantian_gateway_snapshot_"
# What the shim tells that the dashboards ask for, with the labels of each.
SHIM = {
    f"{CP}xds_streams_active": set(), f"{CP}xds_pushes_total": {"kind"},
    f"{CP}xds_stream_terminations_total": {"reason"},
    f"{CP}xds_publish_ack_lag_seconds": {"le"},
    f"{SN}builds_total": set(), f"{SN}build_failures_total": set(), f"{SN}published_total": set(),
    f"{SN}last_build_success": set(), f"{SN}build_duration_seconds": {"le"},
    f"{SN}resource_count": {"resource"}, f"{SN}snapshot_bytes": set(), f"{SN}quarantined_objects": set(),
}  # fmt: skip
# Labels that scraping adds.
SCRAPED = {"job", "instance", "namespace", "pod"}
RATE = "[$__rate_interval]"


def q(expression, legend="", of_shim=False):
    """A query; SEL stands for the choice of processes."""
    chosen = 'job=~"$controlplane_job"' if of_shim else 'job=~"$job", instance=~"$instance"'
    return {"expr": expression.replace("SEL", chosen), "legend": legend}


def total(metric, by="", more=""):
    labels = f"SEL, {more}" if more else "SEL"
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({DP}{metric}{{{labels}}}{RATE}))"


def quantile(at, metric, by="", more="", prefix=DP):
    labels = f"SEL, {more}" if more else "SEL"
    grouped = ", ".join(filter(None, ["le", by]))
    return f"histogram_quantile({at}, sum by ({grouped}) (rate({prefix}{metric}_bucket{{{labels}}}{RATE})))"


def value(metric, by="", function="sum"):
    grouped = f" by ({by})" if by else ""
    return f"{function}{grouped} ({DP}{metric}{{SEL}})"


def average(metric, by="", prefix=DP, of_shim=False):
    """Of a histogram, over the present and not over all the time since the start."""
    grouped = f" by ({by})" if by else ""
    sums = (f"sum{grouped} (rate({prefix}{metric}_{part}{{SEL}}{RATE}))" for part in ("sum", "count"))
    return q(" / ".join(sums), of_shim=of_shim)


def rare(expression):
    """What may never have happened is 0, and not missing."""
    return f"{expression} or vector(0)"


ERRORS = 'status_class="5xx"'
CHOSEN = 'route=~"$route"'
DASHBOARDS = {
    "overview": ("Nantian Gateway: overview", [
        ("stat", "Ready data planes", "short", [q(value("ready"))]),
        ("stat", "Requests", "reqps", [q(total("http_requests_total"))]),
        ("stat", "Server errors", "percentunit",
         [q(f"({rare(total('http_requests_total', more=ERRORS))}) / {total('http_requests_total')}")]),
        ("stat", "Median latency", "s", [q(quantile(0.5, "http_request_duration_seconds"))]),
        ("graph", "Requests by class of status", "reqps", [q(total("http_requests_total", "status_class"), "{{status_class}}")]),
        ("graph", "Latency", "s", [q(quantile(at, "http_request_duration_seconds"), name)
                                   for at, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))]),
        ("graph", "Outcomes but for good ones", "reqps", [q(rare(total("http_outcomes_total", "reason", 'reason!="ok"')), "{{reason}}")]),
        ("graph", "Bytes", "Bps", [q(total("http_received_bytes_total"), "received"), q(total("http_sent_bytes_total"), "sent")]),
        ("graph", "Connections of clients", "short", [q(value("downstream_connections_active", "listener"), "{{listener}}")]),
        ("graph", "Requests being served", "short", [q(value("http_listener_inflight_current", "listener"), "{{listener}}")]),
        ("graph", "Refused for overload", "reqps", [q(total("http_overload_rejected_total", "scope"), "{{scope}}")]),
        ("graph", "Refused by limits of rate", "reqps", [q(rare(total("http_rate_limit_rejected_total", "object")), "{{object}}")]),
        ("graph", "Threads at work", "percentunit", [q(f"rate({DP}thread_busy_seconds_total{{SEL}}{RATE})", "{{instance}} {{thread}}")]),
        ("graph", "CPU", "short", [q(f"rate(process_cpu_seconds_total{{SEL}}{RATE})", "{{instance}}")]),
        ("graph", "Memory", "bytes", [q("process_resident_memory_bytes{SEL}", "{{instance}}")]),
        ("graph", "Level of overload", "short", [q(value("overload_level", "instance", "max"), "{{instance}}")]),
        ("graph", "Certificates end in", "s", [q(f"({rare(f'min by (secret) ({DP}tls_certificate_not_after_timestamp_seconds{{SEL}}) - time()')})", "{{secret}}")]),
        ("graph", "Lost lines and spans", "short", [
            q(total("access_log_writer_dropped_lines_total"), "access log"),
            q(total("log_dropped_lines_total"), "log"), q(total("trace_dropped_spans_total"), "spans")]),
    ]),
    "routes": ("Nantian Gateway: routes", [
        ("graph", "Requests", "reqps", [q(total("http_requests_total", "route", CHOSEN), "{{route}}")]),
        ("graph", "Server errors", "percentunit", [q(
            f"({total('http_requests_total', 'route', f'{CHOSEN}, {ERRORS}')} or 0 * {total('http_requests_total', 'route', CHOSEN)})"
            f" / {total('http_requests_total', 'route', CHOSEN)}", "{{route}}")]),
        ("graph", "Responses by status", "reqps", [q(total("http_responses_total", "status_code", CHOSEN), "{{status_code}}")]),
        ("graph", "Calls over gRPC by code", "reqps", [q(rare(total("grpc_requests_total", "grpc_status", CHOSEN)), "{{grpc_status}}")]),
        ("graph", "Latency, p50", "s", [q(quantile(0.5, "http_request_duration_seconds", "route", CHOSEN), "{{route}}")]),
        ("graph", "Latency, p99", "s", [q(quantile(0.99, "http_request_duration_seconds", "route", CHOSEN), "{{route}}")]),
        ("heatmap", "Latency of all", "s", [q(f"sum by (le) (increase({DP}http_request_duration_seconds_bucket{{SEL, {CHOSEN}}}{RATE}))", "{{le}}")]),
        ("graph", "Bytes sent", "Bps", [q(total("http_sent_bytes_total", "route", CHOSEN), "{{route}}")]),
        ("graph", "Bytes received", "Bps", [q(total("http_received_bytes_total", "route", CHOSEN), "{{route}}")]),
        ("graph", "Without a route", "reqps", [q(rare(total("http_requests_total", "listener", 'route="none"')), "{{listener}}")]),
        ("graph", "Sessions of streams", "short", [q(rare(value("stream_sessions_active", "route")), "{{route}}")]),
        ("graph", "Copies to mirrors", "reqps", [q(rare(total("http_mirrored_requests_total", "result")), "{{result}}")]),
        ("graph", "Plugins", "reqps", [q(rare(total("plugin_requests_total", "plugin")), "{{plugin}}"),
                                       q(rare(total("plugin_failures_total", "plugin")), "{{plugin}} failed")]),
    ]),
    "backends": ("Nantian Gateway: backends", [
        ("graph", "Answers by class of status", "reqps", [q(total("backend_requests_total", "backend, status_class"), "{{backend}} {{status_class}}")]),
        ("graph", "Server errors of answers", "percentunit", [q(
            f"({total('backend_requests_total', 'backend', ERRORS)} or 0 * {total('backend_requests_total', 'backend')})"
            f" / {total('backend_requests_total', 'backend')}", "{{backend}}")]),
        ("graph", "Wait for the head of an answer, average", "s", [q(
            f"{total('backend_response_wait_seconds_total', 'backend')} / {total('backend_requests_total', 'backend')}", "{{backend}}")]),
        ("graph", "Endpoints that may be used", "percentunit", [q(f"avg by (backend) ({DP}backend_health_status{{SEL}})", "{{backend}}")]),
        ("graph", "Requests on their way", "short", [q(value("http_circuit_breaker_backend_inflight_current", "backend"), "{{backend}}")]),
        ("graph", "Open connections", "short", [q(value("backend_connections_active", "backend"), "{{backend}}")]),
        ("graph", "New connections", "cps", [q(total("backend_connections_total", "backend"), "{{backend}}")]),
        ("graph", "Failed connections", "cps", [q(rare(total("backend_connection_errors_total", "backend, reason")), "{{backend}} {{reason}}")]),
        ("graph", "Time to connect, average", "ms", [average("traffic_upstream_connect_latency_ms")]),
        ("graph", "Requests over a kept connection", "percentunit", [q(
            f"{total('traffic_upstream_pool_hits_total')} / ({total('traffic_upstream_pool_hits_total')} + {total('traffic_upstream_pool_misses_total')})")]),
        ("graph", "Retries", "reqps", [q(rare(total("backend_retries_total", "backend")), "{{backend}}"),
                                       q(rare(total("backend_retries_denied_total", "backend, cause")), "{{backend}} denied: {{cause}}")]),
        ("graph", "Ejected endpoints", "short", [q(value("endpoint_passive_ejected_current"))]),
        ("graph", "Breakers (0 closed, 1 half-open, 2 open)", "short", [q(rare(value("http_circuit_breaker_state", "backend", "max")), "{{backend}}")]),
        ("graph", "Refused by breakers", "reqps", [q(total("http_circuit_breaker_rejected_total"))]),
        ("graph", "Failed health checks", "cps", [q(rare(total("backend_health_checks_total", "backend", 'result="failed"')), "{{backend}}")]),
    ]),
    "control-plane": ("Nantian Gateway: control plane", [
        ("stat", "Connected data planes", "short", [q(value("xds_connected"))]),
        ("stat", "Stale data planes", "short", [q(value("xds_snapshot_stale"))]),
        ("stat", "Since the last configuration", "s", [q(f"time() - max({DP}xds_last_apply_timestamp_seconds{{SEL}})")]),
        ("graph", "Updates", "short", [q(f"sum(increase({DP}{it}{{SEL}}{RATE}))", name) for it, name in (
            ("xds_snapshots_applied_total", "snapshots"), ("xds_deltas_applied_total", "deltas"),
            ("xds_snapshots_nacked_total", "refused"), ("xds_snapshots_skipped_total", "skipped"))]),
        ("graph", "Time of an update by stage, p99", "s", [q(f"({quantile(0.99, 'xds_apply_stage_duration_seconds', 'stage')}) >= 0 or 0 * {value('xds_apply_stage_duration_seconds_count', 'stage')}", "{{stage}}")]),
        ("graph", "Configuration", "short", [q(value(it, function="max"), name) for it, name in (
            ("listener_count", "listeners"), ("http_route_count", "HTTP routes"), ("grpc_route_count", "gRPC routes"),
            ("stream_route_count", "stream routes"), ("backend_count", "backends"), ("secret_count", "secrets"))]),
        ("graph", "Faults of the stream", "cps", [q(total("xds_connect_failures_total"), "connecting"), q(total("xds_stream_failures_total"), "streams")]),
        ("graph", "Streams of the shim", "short", [q(f"sum({CP}xds_streams_active{{SEL}})", of_shim=True)]),
        ("graph", "Pushes of the shim", "cps", [q(f"sum by (kind) (rate({CP}xds_pushes_total{{SEL}}{RATE}))", "{{kind}}", True)]),
        ("graph", "From push to ACK, average", "s", [average("xds_publish_ack_lag_seconds", prefix=CP, of_shim=True)]),
        ("graph", "Translations", "cps", [q(f"sum(rate({SN}builds_total{{SEL}}{RATE}))", "made", True), q(f"sum(rate({SN}build_failures_total{{SEL}}{RATE}))", "failed", True)]),
        ("graph", "Time of a translation, average", "s", [average("build_duration_seconds", prefix=SN, of_shim=True)]),
        ("graph", "Resources", "short", [q(f"max by (resource) ({SN}resource_count{{SEL}})", "{{resource}}", True)]),
        ("graph", "Objects left out", "short", [q(f"max({SN}quarantined_objects{{SEL}})", of_shim=True)]),
    ]),
    "ai": ("Nantian Gateway: AI", [
        ("graph", "Tokens", "short", [q(total("gen_ai_client_token_usage_sum", "service, token_type"), "{{service}} {{token_type}}")]),
        ("graph", "Tokens by model", "short", [q(total("gen_ai_client_token_usage_sum", "provider, model"), "{{provider}} {{model}}")]),
        ("graph", "Calls", "reqps", [q(total("gen_ai_client_operation_duration_seconds_count", "service"), "{{service}}")]),
        ("graph", "Time of a call", "s", [q(quantile(at, "gen_ai_client_operation_duration_seconds", "service"), f"{{{{service}}}} {name}") for at, name in ((0.5, "p50"), (0.99, "p99"))]),
        ("graph", "Time to the first piece, p50", "s", [q(quantile(0.5, "gen_ai_client_operation_time_to_first_chunk_seconds", "service"), "{{service}}")]),
        ("graph", "Time between pieces, p50", "s", [q(quantile(0.5, "gen_ai_client_operation_time_per_output_chunk_seconds", "service"), "{{service}}")]),
        ("graph", "Failed calls", "reqps", [q(rare(total("gen_ai_client_operation_errors_total", "service, provider, error_type")), "{{service}} {{provider}} {{error_type}}")]),
        ("graph", "Retries and fail-overs", "reqps", [q(total("ai_retries_total", "service"), "{{service}} retried"), q(total("ai_failovers_total", "service"), "{{service}} failed over")]),
        ("graph", "Over budget", "reqps", [q(total("ai_token_policy_outcomes_total", "service, outcome"), "{{service}} {{outcome}}")]),
        ("graph", "Redactions", "reqps", [q(rare(total("ai_redactions_total", "kind")), "{{kind}}")]),
    ]),
}  # fmt: skip


def variable(name, label, metric, wanted):
    return {
        "name": name, "label": label, "type": "query", "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": f"label_values({metric}, {wanted})", "refId": name}, "refresh": 2, "sort": 1,
        "multi": True, "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def variables(name):
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    yield variable("job", "Job", f"{DP}ready", "job")
    yield variable("instance", "Data plane", f'{DP}ready{{job=~"$job"}}', "instance")
    if name == "routes":
        yield variable("route", "Route", f'{DP}http_requests_total{{job=~"$job"}}', "route")
    if name == "control-plane":
        yield variable("controlplane_job", "Control plane", f"{SN}builds_total", "job")


def panel(number, at, kind, title, unit, queries):
    x, y, width, height = at
    grafana = {"stat": "stat", "graph": "timeseries", "heatmap": "heatmap"}[kind]
    source = {"type": "prometheus", "uid": "${datasource}"}
    targets = [
        {"refId": chr(ord("A") + at), "datasource": source, "expr": it["expr"], "legendFormat": it["legend"] or "__auto",
         "format": "heatmap" if kind == "heatmap" else "time_series", "instant": kind == "stat", "range": kind != "stat"}
        for at, it in enumerate(queries)
    ]  # fmt: skip
    made = {
        "id": number, "type": grafana, "title": title, "datasource": source, "targets": targets,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []}, "options": {},
    }  # fmt: skip
    if kind == "graph":
        made["options"] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return made


def dashboard(name):
    title, rows = DASHBOARDS[name]
    panels, x, y = [], 0, 0
    for number, (kind, head, unit, queries) in enumerate(rows, 1):
        width, height = (6, 4) if kind == "stat" else (12, 8)
        if x + width > 24 or (panels and kind != "stat" and panels[-1]["type"] == "stat"):
            y += panels[-1]["gridPos"]["h"]
            x = 0
        panels.append(panel(number, (x, y, width, height), kind, head, unit, queries))
        x += width
    return {
        "uid": f"nantian-gw-{name}", "title": title, "tags": ["nantian-gw"], "schemaVersion": 39, "version": 1,
        "editable": True, "graphTooltip": 1, "refresh": "30s", "time": {"from": "now-1h", "to": "now"},
        "links": [{"type": "dashboards", "title": "Nantian Gateway", "tags": ["nantian-gw"], "asDropdown": True, "keepTime": True, "includeVars": True}],
        "templating": {"list": list(variables(name))}, "panels": panels, "annotations": {"list": []},
    }  # fmt: skip


def declared():
    """Names and labels as the reference has them."""
    names = dict(SHIM)
    for line in (ROOT / "docs/reference/metrics.md").read_text().splitlines():
        row = re.match(r"\| `(\w+)` \| (\w+) \| (.*?) \|", line)
        if row:
            labels = set(re.findall(r"`(\w+)`", row[3]))
            names[row[1]] = labels | ({"le"} if row[2] == "histogram" else set())
    return names


def faults(name, names):
    """What a dashboard asks for that nobody tells."""
    for it in dashboard(name)["panels"]:
        for target in it["targets"]:
            expression = target["expr"]
            for metric, labels in re.findall(r"\b((?:nantian_gateway|process)_\w+)(?:\{(.*?)\})?", expression):
                base = re.sub(r"_(bucket|sum|count)$", "", metric)
                known = names.get(metric, names.get(base if metric != base else "", None))
                if known is None:
                    yield f"{name}: {it['title']}: there is no {metric}"
                    continue
                unknown = set(re.findall(r"(\w+)\s*[=!]~?", labels)) - known - SCRAPED
                if unknown:
                    yield f"{name}: {it['title']}: {metric} has no {', '.join(sorted(unknown))}"


def main():
    names, found = declared(), []
    for name in DASHBOARDS:
        found += faults(name, names)
        text = json.dumps(dashboard(name), indent=1) + "\n"
        path = OUT / f"{name}.json"
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                found.append(f"{path.relative_to(ROOT)} is stale: run e2e/monitoring/dashboards.py")
        else:
            OUT.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
