// The console: asks the admin API of this address again and again and shows what it says.
//
// Everything is put into the page as text, never as markup, so nothing in an answer is run. The token
// is kept for this tab alone. Rates come from two scrapes of /metrics, one interval apart.

import { scrape, rates } from "./metrics.js";

const INTERVAL_MS = 2000;
const HISTORY = 60;
const ROWS = 200;

const state = { token: sessionStorage.getItem("token"), paused: false, search: "", data: {}, last: null, traffic: null, history: [], form: {}, explained: null, timer: 0, turn: 0, force: false };

// ---- the page as text --------------------------------------------------------------------------

const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child != null).map((child) => (child instanceof Node ? child : String(child))));
  return made;
};

const number = (value, digits = 0) => (value == null || Number.isNaN(value) ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits }));
const rate = (value) => `${number(value, value < 10 ? 2 : 0)}/s`;
const share = (value) => (Number.isFinite(value) ? `${number(100 * value, 1)} %` : "–");
const millis = (seconds) => (Number.isFinite(seconds) ? `${number(1000 * seconds, seconds < 0.1 ? 2 : 0)} ms` : "–");
const ago = (unixMs) => {
  if (!unixMs) return "never";
  const seconds = Math.max(0, Math.round((Date.now() - unixMs) / 1000));
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} days ago`;
};

const GOOD = new Set(["well", "open", "ready", "valid", "usable", "applied", "connected", "closed breaker"]);
const DOUBT = new Set(["on_probation", "ends_soon", "half_open", "partial", "starting", "unused", "ending"]);
// A state is told by a sign and a word, so that nobody has to see its colour.
const badge = (word, why) => {
  const [look, sign] = GOOD.has(word) ? ["good", "●"] : DOUBT.has(word) ? ["doubt", "◐"] : ["bad", "○"];
  return element("span", { class: look, title: why || null }, element("span", { "aria-hidden": "true" }, `${sign} `), word.replaceAll("_", " "));
};

const cards = (facts) => element("dl", { class: "cards" }, facts.map(([name, value, small, below]) =>
  element("div", {}, element("dt", {}, name), element("dd", { class: small ? "small" : null }, value, below))));

const table = (caption, columns, rows) => element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
  element("table", {},
    element("caption", {}, rows.length ? caption : `${caption}: none`),
    element("thead", {}, element("tr", {}, columns.map(([head, , look]) => element("th", { scope: "col", class: look }, head)))),
    element("tbody", {}, rows.map((row) => element("tr", {}, columns.map(([, cell, look]) => element("td", { class: look }, cell(row) ?? "–")))))));

const spark = (values, label) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const top = Math.max(1e-9, ...values);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const step = 100 / Math.max(1, HISTORY - 1);
  line.setAttribute("points", values.map((value, at) => `${((HISTORY - values.length + at) * step).toFixed(2)},${(38 - (36 * value) / top).toFixed(2)}`).join(" "));
  svg.setAttribute("viewBox", "0 0 100 40");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "spark");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  svg.append(line);
  return svg;
};

// ---- the admin API -----------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const ask = async (path, isText = false) => {
  const headers = state.token ? { authorization: `Bearer ${state.token}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(15000) });
  const text = await answer.text();
  if (!answer.ok) {
    let detail = text;
    try { detail = JSON.parse(text).detail ?? text; } catch { /* it is the text, then */ }
    throw new Refused(answer.status, detail);
  }
  return isText ? text : JSON.parse(text);
};

const query = (more = {}) => {
  const parameters = new URLSearchParams({ limit: ROWS, ...more });
  if (state.search) parameters.set("search", state.search);
  return `?${parameters}`;
};

// What each page needs besides the summary and the metrics.
const NEEDS = {
  overview: { xds: "/api/v1/xds/status", limits: "/api/v1/limits" },
  topology: { listeners: "/api/v1/listeners?limit=200", routes: () => `/api/v1/routes${query()}`, backends: "/api/v1/backends?limit=2000" },
  backends: { endpoints: () => `/api/v1/endpoints${query()}`, breakers: () => `/api/v1/circuit-breakers${query()}` },
  configuration: { xds: "/api/v1/xds/status", history: "/api/v1/config/history" },
  certificates: { certificates: () => `/api/v1/certificates${query()}` },
  ai: { services: () => `/api/v1/ai/services${query()}` },
  limits: { limits: "/api/v1/limits", rules: () => `/api/v1/rate-limits${query()}` },
  explain: {},
};

// ---- the pages ---------------------------------------------------------------------------------

const searchBox = () => element("form", { class: "tools", role: "search", onsubmit: (event) => { event.preventDefault(); state.search = event.target.elements.search.value.trim(); state.force = true; refresh(); } },
  element("div", {}, element("label", { for: "search" }, "Namespace or name contains"), element("input", { id: "search", name: "search", value: state.search })),
  element("button", { type: "submit" }, "Search"));

const isMore = (list, what) => (list.length >= ROWS ? element("p", { class: "note" }, `The first ${ROWS} ${what} are shown; search for others.`) : null);

const PAGES = {
  overview: {
    title: "Overview",
    show: ({ summary, xds, limits }) => {
      const totals = state.traffic?.total ?? {};
      const past = (name) => state.history.map((it) => it[name]);
      return [
        alerts(summary, xds),
        element("h2", {}, "Traffic"),
        cards([
          ["Requests", rate(totals.requests), false, spark(past("requests"), "Requests per second over the last two minutes")],
          ["Errors (5xx)", share(totals.errors / totals.requests), false, spark(past("errors"), "Errors per second over the last two minutes")],
          ["Latency, mean", millis(totals.mean), false, spark(past("mean"), "Mean latency over the last two minutes")],
          ["Latency, 99 %", millis(totals.p99)],
          ["Connections", `${number(limits.connections.current)} of ${limits.connections.limit == null ? "any" : number(limits.connections.limit)}`, true],
          ["Load", limits.level, true],
        ]),
        element("h2", {}, "Configuration"),
        cards([
          ["Phase", badge(summary.phase), true],
          ["Version", summary.config_version ?? "none yet", true],
          ["Applied", ago(xds.last_applied_unix_ms), true],
          ["Control plane", badge(xds.connected ? "connected" : "disconnected", xds.last_error), true],
          ["Listeners", number(summary.listeners)],
          ["Routes", number(summary.http_routes + summary.grpc_routes + summary.stream_routes)],
          ["Backends", number(summary.backends)],
          ["Secrets", number(summary.secrets)],
        ]),
        routesTable(),
      ];
    },
  },
  topology: {
    title: "Topology",
    show: ({ listeners, routes, backends }) => [
      element("h2", {}, "From listeners over routes to endpoints"),
      searchBox(),
      topology(listeners, routes, backends),
      isMore([...routes.http, ...routes.grpc, ...routes.stream], "routes"),
    ],
  },
  backends: {
    title: "Backends",
    show: ({ endpoints, breakers }) => [
      element("h2", {}, "Backends and their endpoints"),
      searchBox(),
      table("Endpoints", [
        ["Backend", (it) => it.backend], ["Address", (it) => it.address], ["State", (it) => badge(it.state, it.why)],
        ["Requests now", (it) => number(it.requests_active), "number"], ["Chosen", (it) => number(it.picks), "number"],
        ["Failures in a row", (it) => number(it.failures_in_a_row), "number"], ["Health check", (it) => it.health_check], ["Why", (it) => it.why || "–", "long"],
      ], endpoints),
      isMore(endpoints, "endpoints"),
      element("h2", {}, "What backends carry"),
      table("Backends", [
        ["Backend", (it) => it.backend], ["Requests now", (it) => number(it.requests_active), "number"], ["Waiting", (it) => number(it.requests_pending), "number"],
        ["Connections", (it) => number(it.connections_active), "number"], ["Available", (it) => number(it.endpoints_available), "number"],
        ["Left out", (it) => number(it.endpoints_ejected + it.endpoints_unwell), "number"],
        ["Breaker", (it) => (it.breaker ? badge(it.breaker.state === "closed" ? "closed breaker" : it.breaker.state) : "none")],
      ], breakers),
    ],
  },
  configuration: {
    title: "Configuration",
    show: ({ summary, xds, history }) => [
      alerts(summary, xds),
      element("h2", {}, "The stream to the control plane"),
      cards([
        ["State", badge(xds.connected ? "connected" : "disconnected", xds.last_error), true], ["Control plane", xds.control_plane || "–", true],
        ["Reconnects", number(xds.stream_reconnects)], ["Applied", number(xds.snapshots_applied)], ["Refused", number(xds.snapshots_nacked)],
        ["Version", xds.version ?? "none yet", true],
      ]),
      element("h2", {}, "The last updates"),
      table("Updates, the newest first", [
        ["Version", (it) => it.version], ["Result", (it) => badge(it.result)], ["When", (it) => ago(it.at_unix_ms)], ["Why it was refused", (it) => it.error_detail ?? "–", "long"],
      ], history.updates),
    ],
  },
  certificates: {
    title: "Certificates",
    show: ({ certificates }) => [
      element("h2", {}, "Certificates"),
      searchBox(),
      table("Certificates", [
        ["Secret", (it) => it.secret], ["State", (it) => badge(it.state, it.why)], ["Days left", (it) => number(it.days_left), "number"],
        ["Ends", (it) => (it.not_after_unix_ms ? new Date(it.not_after_unix_ms).toISOString().slice(0, 16).replace("T", " ") + " UTC" : "–")],
        ["Names", (it) => (it.names ?? []).join(", "), "long"], ["Issuer", (it) => it.issuer, "long"], ["Listeners", (it) => it.listeners.join(", "), "long"],
      ], certificates),
      isMore(certificates, "certificates"),
    ],
  },
  ai: {
    title: "AI services",
    show: ({ services }) => [
      element("h2", {}, "AI services"),
      searchBox(),
      table("Services", [
        ["Service", (it) => it.key], ["State", (it) => badge(it.state, it.why)], ["Model", (it) => it.model || "as asked"],
        ["Providers", (it) => it.providers.map((one) => one.provider).join(", ")],
        ["Budget", (it) => budget(it.token_policy), "long"],
        ["Over budget", (it) => number(it.outcomes.over_budget_rejected + it.outcomes.over_budget_queued + it.outcomes.over_budget_degraded + it.outcomes.over_budget_passed), "number"],
        ["Failed", (it) => number(it.outcomes.errors.reduce((sum, error) => sum + error.count, 0)), "number"],
      ], services),
      element("h2", {}, "What was used"),
      table("Tokens since the start, by model", [
        ["Service", (it) => it.key], ["Provider", (it) => it.provider], ["Model", (it) => it.model], ["Calls", (it) => number(it.calls), "number"],
        ["Input tokens", (it) => number(it.input_tokens), "number"], ["Of these cached", (it) => number(it.cached_input_tokens), "number"], ["Output tokens", (it) => number(it.output_tokens), "number"],
      ], services.flatMap((service) => service.usage.map((usage) => ({ key: service.key, ...usage })))),
    ],
  },
  limits: {
    title: "Limits",
    show: ({ limits, rules }) => [
      element("h2", {}, "What the process carries"),
      cards(["connections", "upstream_connections", "large_heads", "mirrors"].map((name) => [name.replaceAll("_", " "), `${number(limits[name].current)} of ${limits[name].limit == null ? "any" : number(limits[name].limit)}`, true])),
      element("h2", {}, "Limits of rate"),
      searchBox(),
      table("Limits of rate", [
        ["Scope", (it) => it.scope], ["Object", (it) => it.object], ["Name", (it) => it.name], ["Allows", (it) => `${number(it.requests)} in ${number(it.period_ms)} ms`],
        ["By", (it) => it.key], ["Left", (it) => number(it.available_tokens), "number"], ["Refused", (it) => number(it.rejected), "number"], ["Waiting", (it) => number(it.waiting), "number"],
      ], rules),
      isMore(rules, "limits"),
    ],
  },
  explain: {
    title: "Explain",
    show: () => [element("h2", {}, "Which route takes a request, and why"), explainForm(), element("div", { id: "explained", role: "status", "aria-live": "polite" }, explained())],
  },
};

const alerts = (summary, xds) => {
  const refused = xds.last_nack && (!xds.last_ack || xds.last_nack.at_unix_ms > xds.last_ack.at_unix_ms);
  return [
    summary.ready ? null : element("p", { class: "alert" }, badge(summary.phase), ": this data plane does not want traffic; /readyz says why."),
    xds.connected ? null : element("p", { class: "alert" }, `The control plane is not connected; the last configuration serves on. ${xds.last_error ?? ""}`),
    refused ? element("p", { class: "alert" }, `Version ${xds.last_nack.version} was refused ${ago(xds.last_nack.at_unix_ms)}; the one before serves on. ${xds.last_nack.error_detail ?? ""}`) : null,
  ].filter(Boolean);
};

const routesTable = () => {
  const rows = [...(state.traffic?.routes ?? new Map()).entries()].map(([route, it]) => ({ route, ...it }));
  rows.sort((one, other) => other.requests - one.requests || one.route.localeCompare(other.route));
  return [
    element("h2", {}, "Routes by requests"),
    table("Routes, the busiest first", [
      ["Route", (it) => it.route], ["Requests", (it) => rate(it.requests), "number"], ["4xx", (it) => share(it.client / it.requests), "number"],
      ["5xx", (it) => share(it.errors / it.requests), "number"], ["Mean", (it) => millis(it.mean), "number"], ["99 %", (it) => millis(it.p99), "number"],
    ], rows.slice(0, 20)),
  ];
};

const budget = (policy) => {
  if (!policy) return "none";
  const limits = [["tokens_per_minute", "tokens a minute"], ["tokens_per_hour", "tokens an hour"], ["requests_per_minute", "requests a minute"]];
  const told = limits.filter(([field]) => policy[field] != null).map(([field, words]) => `${number(policy[field])} ${words}`);
  const left = policy.left?.tokens != null ? `, ${number(policy.left.tokens)} tokens left` : "";
  return `${told.join(", ") || "no limit"} by ${policy.scope}${left}`;
};

const topology = (listeners, routes, backends) => {
  const byKey = new Map(backends.map((it) => [it.key, it]));
  const clusters = (target) => byKey.get(target) ?? byKey.get(target.split(":")[0]);
  const all = [...routes.http.map((it) => ({ kind: "HTTPRoute", label: "Http", ...it })), ...routes.grpc.map((it) => ({ kind: "GRPCRoute", label: "Grpc", ...it })), ...routes.stream];
  const backend = (target) => {
    const found = clusters(target);
    const children = (found?.endpoints ?? []).slice(0, 20).map((it) => element("li", {}, element("span", { class: "kind" }, "endpoint"), it.address, " ", badge(it.state, it.why), element("span", { class: "rate" }, `${number(it.requests_inflight)} requests now`)));
    const more = (found?.endpoints.length ?? 0) - children.length;
    return element("li", {}, element("span", { class: "kind" }, "backend"), target, " ",
      found ? badge(found.endpoints_available ? "well" : found.ai_service ? "usable" : "no endpoint") : badge("not there"),
      children.length ? element("ul", {}, children, more > 0 ? element("li", { class: "note" }, `and ${more} more endpoints`) : null) : null);
  };
  const route = (it) => {
    const traffic = state.traffic?.routes.get(`${it.label}/${it.namespace}/${it.name}`) ?? state.traffic?.routes.get(`${it.namespace}/${it.name}`);
    const targets = [...new Set(it.rules.flatMap((rule) => rule.backends.map((one) => one.target)))];
    return element("li", {}, element("span", { class: "kind" }, it.kind), `${it.namespace}/${it.name} `,
      element("span", { class: "note" }, (it.hostnames ?? []).join(", ")),
      traffic ? element("span", { class: "rate" }, `${rate(traffic.requests)}, ${share(traffic.errors / traffic.requests)} errors, ${millis(traffic.mean)}`) : null,
      targets.length ? element("ul", {}, targets.map(backend)) : element("p", { class: "note" }, "no backend: a filter answers"));
  };
  return element("ul", { class: "tree" }, listeners.map((listener) => {
    const own = all.filter((it) => it.listeners.includes(listener.name));
    const traffic = state.traffic?.listeners.get(listener.name);
    return element("li", {}, element("span", { class: "kind" }, `listener ${listener.protocol}`), element("strong", {}, listener.name), ` :${listener.port} `, badge(listener.ready ? "open" : "not open"),
      element("span", { class: "note" }, ` ${listener.hostnames.join(", ")}`),
      traffic ? element("span", { class: "rate" }, rate(traffic.requests)) : null,
      own.length ? element("ul", {}, own.map(route)) : element("p", { class: "note" }, "no route is shown here"));
  }));
};

const FIELDS = [["method", "Method", "GET"], ["host", "Host", "www.example.com"], ["port", "Port", "80"], ["path", "Path and query", "/"], ["tls", "TLS", null], ["sni", "Server name (TLS)", ""], ["client", "Client address", ""]];
// What the live trace can be asked for, and for how long it is.
const WATCHED = new Set(["method", "host", "path", "client"]);
const WATCH_SECONDS = 10;
const CHOICES = [["", "no: http"], ["true", "yes: https"]];
const explainField = ([name, label, hint]) => element("div", {}, element("label", { for: name }, label),
  hint === null
    ? element("select", { id: name, name }, CHOICES.map(([value, text]) => element("option", { value, selected: (state.form[name] ?? "") === value }, text)))
    : element("input", { id: name, name, placeholder: hint, value: state.form[name] ?? "" }));
const explainForm = () => element("form", { onsubmit: explain, oninput: (event) => { state.form[event.target.name] = event.target.value; } },
  element("div", { class: "fields" }, FIELDS.map(explainField)),
  element("label", { for: "header" }, "Header fields, as “name: value”, separated by “;”"), element("input", { id: "header", name: "header", size: "60", value: state.form.header ?? "" }),
  element("p", {}, element("button", { type: "submit" }, "Explain"), " ", element("button", { type: "submit", name: "watch" }, `Watch for ${WATCH_SECONDS} s`)),
  element("p", { class: "note" }, "Explain sends nothing. Watch shows such requests of clients as they end, step by step, by method, host, path, client and fields."));

const asked = (isTaken) => {
  const wanted = FIELDS.map(([name]) => [name, state.form[name]]).filter(([name, value]) => value && isTaken(name));
  for (const field of (state.form.header ?? "").split(";")) if (field.trim()) wanted.push(["header", field.trim()]);
  return wanted.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
};
const explain = async (event) => {
  event.preventDefault();
  const tell = (it) => { state.explained = it; document.querySelector("#explained")?.replaceChildren(...explained()); };
  try {
    if (event.submitter?.name === "watch") {
      tell({ message: `Watching for ${WATCH_SECONDS} seconds …` });
      tell({ watched: await ask(`/api/v1/trace?seconds=${WATCH_SECONDS}&count=20&${asked((name) => WATCHED.has(name))}`) });
    } else tell({ answer: await ask(`/api/v1/explain?${asked(() => true)}`) });
  } catch (error) {
    const isMissing = error.status === 404 && /no such path/.test(error.message);
    tell({ message: isMissing ? "This data plane cannot do that." : error.message });
  }
};
const watched = ({ requests, missed }) => [
  element("h3", {}, requests.length ? "Requests that ended meanwhile" : "No such request ended meanwhile"),
  missed ? element("p", { class: "note" }, `${missed} more ended too fast to be shown.`) : null,
  requests.map((it, at) => element("details", { open: at === 0 },
    element("summary", {}, `${it.method} ${it.host}${it.path}, ${it.status} ${it.reason}, ${millis(it.latency_ms / 1000)}`),
    table("Steps", [["At", (step) => millis(step.at_ms / 1000), "number"], ["Step", (step) => step.step], ["Detail", (step) => step.detail, "long"]], it.steps))),
].flat().filter(Boolean);

const ruleOf = (it) => (it ? `${it.kind} ${it.route}, rule ${it.rule}${it.rule_name ? ` (${it.rule_name})` : ""}` : null);
const explained = () => {
  if (!state.explained) return [];
  const { answer, message, watched: seen } = state.explained;
  if (seen) return watched(seen);
  if (message) return [element("p", { class: "alert" }, message)];
  const facts = [
    ["Answer", answer.answer ? [answer.answer.status, answer.answer.reason, answer.answer.detail].filter((it) => it != null).join(", ") : "the backend's own", true],
    ["Route", ruleOf(answer.route) ?? "none", true],
    ["Listener", answer.listener?.name ?? "none", true],
    ["Certificate", answer.certificate?.secret ?? "none", true],
  ];
  const shown = (value) => (value == null ? null : typeof value === "object" ? JSON.stringify(value) : String(value));
  return [
    element("h3", {}, "The answer"),
    cards(facts),
    answer.backends?.length ? table("Backends", [["Backend", (it) => it.target ?? it.cluster], ["Weight", (it) => it.weight], ["Endpoints", (it) => shown(it.endpoints), "long"], ["Fault", (it) => it.fault]], answer.backends) : null,
    answer.others?.length ? table("Others that came close, and why each lost", [["Rule", ruleOf], ["Why", (it) => shown(it.why), "long"]], answer.others) : null,
    element("details", {}, element("summary", {}, "All of it, as JSON"), element("pre", { tabindex: "0" }, JSON.stringify(answer, null, 2))),
  ].filter(Boolean);
};

// ---- showing -----------------------------------------------------------------------------------

const current = () => (location.hash.slice(1) in PAGES ? location.hash.slice(1) : "overview");

const showTabs = () => document.querySelector("#tabs").replaceChildren(...Object.entries(PAGES).map(([id, { title }]) =>
  element("li", {}, element("a", { href: `#${id}`, "aria-current": id === current() ? "page" : null }, title))));

// The page is made anew; whoever stands in a field or scrolls a table stays there.
const show = () => {
  const page = document.querySelector("#page");
  const active = document.activeElement?.closest("#page") ? document.activeElement : null;
  const isTyping = active?.matches("input, select");
  if (isTyping && state.shown === current() && !state.force) return;
  // What was explained stays as it was opened and read.
  if (state.shown === "explain" && current() === "explain") return;
  state.force = false;
  const place = active ? [...page.querySelectorAll("a, button, input, [tabindex]")].indexOf(active) : -1;
  const scrolled = [...page.querySelectorAll(".scroll")].map((it) => it.scrollLeft);
  page.replaceChildren(...PAGES[current()].show(state.data).flat(3).filter((it) => it != null));
  page.querySelectorAll(".scroll").forEach((it, at) => { it.scrollLeft = scrolled[at] ?? 0; });
  if (place >= 0 && state.shown === current()) page.querySelectorAll("a, button, input, [tabindex]")[place]?.focus({ preventScroll: true });
  page.hidden = false;
  state.shown = current();
};

const signIn = (why) => {
  state.token = null;
  sessionStorage.removeItem("token");
  document.querySelector("#page").hidden = true;
  const form = document.querySelector("#sign-in");
  if (form.hidden) {
    form.hidden = false;
    document.querySelector("#token").focus();
  }
  document.querySelector("#sign-in-why").textContent = why;
};

const note = (scraped) => {
  if (state.last) {
    state.traffic = rates(state.last, scraped);
    state.history = [...state.history, state.traffic.total].slice(-HISTORY);
  }
  state.last = scraped;
};

const refresh = async () => {
  clearTimeout(state.timer);
  state.turn += 1;
  const turn = state.turn;
  const id = current();
  const began = performance.now();
  const live = document.querySelector("#live");
  try {
    const summary = await ask("/api/v1/summary");
    const needs = Object.entries(NEEDS[id]).map(async ([name, path]) => [name, await ask(typeof path === "function" ? path() : path)]);
    const [text, ...answers] = await Promise.all([ask("/metrics", true), ...needs]);
    if (turn === state.turn) {
      note(scrape(text));
      state.data = { summary, ...Object.fromEntries(answers) };
      document.querySelector("#sign-in").hidden = true;
      document.querySelector("#who").textContent = `${summary.node_id}, version ${summary.version}`;
      document.title = `${PAGES[id].title} · ${summary.node_id} · Nantian Gateway`;
      show();
    }
    if (live.textContent.startsWith("No")) live.textContent = "";
  } catch (error) {
    if (error.status === 401) return signIn(state.token ? "That token is not the right one." : "This admin API asks for its token.");
    // Said once, so that a screen reader is not interrupted every two seconds.
    const message = `No answer: ${error.message}`;
    if (live.textContent !== message) live.textContent = message;
  }
  // A data plane with very many routes takes longer to tell; it is asked less often.
  const wait = Math.max(INTERVAL_MS, 10 * (performance.now() - began));
  if (!state.paused && turn === state.turn) state.timer = setTimeout(refresh, wait);
};

document.querySelector("#sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = document.querySelector("#token");
  state.token = field.value.trim();
  sessionStorage.setItem("token", state.token);
  field.value = "";
  refresh();
});
document.querySelector("#pause").addEventListener("click", (event) => {
  state.paused = !state.paused;
  event.target.setAttribute("aria-pressed", String(state.paused));
  event.target.textContent = state.paused ? "Go on" : "Pause";
  refresh();
});
addEventListener("hashchange", () => { showTabs(); document.querySelector("#main").focus(); refresh(); });
showTabs();
refresh();
