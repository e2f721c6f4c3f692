// Reads the Prometheus text of /metrics and makes rates of two scrapes. Knows nothing of the page.

const PREFIX = "nantian_gateway_dataplane_";
const WANTED = [`${PREFIX}http_requests_total{`, `${PREFIX}http_request_duration_seconds_`];

// Takes `name{a="b",…} value` apart; a value of a label may hold anything, escaped.
const line = (text) => {
  const open = text.indexOf("{");
  const labels = {};
  let at = open + 1;
  while (text[at] !== "}") {
    const equal = text.indexOf("=", at);
    const name = text.slice(at, equal);
    let value = "";
    for (at = equal + 2; text[at] !== '"'; at += 1) {
      if (text[at] === "\\") {
        at += 1;
        value += text[at] === "n" ? "\n" : text[at];
      } else {
        value += text[at];
      }
      if (at >= text.length) return null;
    }
    labels[name] = value;
    at += text[at + 1] === "," ? 2 : 1;
    if (at >= text.length) return null;
  }
  return { name: text.slice(PREFIX.length, open), labels, value: Number(text.slice(at + 1).trim().split(" ")[0]) };
};

// Sums by route and by listener, at one moment.
export const scrape = (text, at = performance.now()) => {
  const found = { at, routes: new Map(), listeners: new Map() };
  const of = (map, key) => {
    if (!map.has(key)) map.set(key, { requests: 0, errors: 0, client: 0, sum: 0, buckets: new Map() });
    return map.get(key);
  };
  for (const raw of text.split("\n")) {
    if (!WANTED.some((prefix) => raw.startsWith(prefix))) continue;
    const sample = line(raw);
    if (!sample) continue;
    const { name, labels, value } = sample;
    for (const entry of [of(found.routes, labels.route), of(found.listeners, labels.listener)]) {
      if (name === "http_requests_total") {
        entry.requests += value;
        if (labels.status_class === "5xx") entry.errors += value;
        if (labels.status_class === "4xx") entry.client += value;
      } else if (name === "http_request_duration_seconds_sum") {
        entry.sum += value;
      } else if (name === "http_request_duration_seconds_bucket") {
        const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
        entry.buckets.set(bound, (entry.buckets.get(bound) ?? 0) + value);
      }
    }
  }
  return found;
};

// The latency below which that share of requests stayed, by the bucket it falls into.
const quantile = (buckets, wanted) => {
  const bounds = [...buckets.keys()].sort((one, other) => one - other);
  const all = buckets.get(Infinity) ?? 0;
  if (all <= 0) return NaN;
  let below = 0;
  let from = 0;
  for (const bound of bounds) {
    const here = buckets.get(bound);
    if (here >= wanted * all) {
      if (bound === Infinity) return from;
      return from + (bound - from) * ((wanted * all - below) / Math.max(1, here - below));
    }
    below = here;
    from = bound;
  }
  return from;
};

const between = (old, now, seconds) => {
  // A counter that fell began anew with its process.
  const grown = (name) => Math.max(0, now[name] - (old?.[name] ?? 0));
  const buckets = new Map([...now.buckets].map(([bound, value]) => [bound, Math.max(0, value - (old?.buckets.get(bound) ?? 0))]));
  const requests = grown("requests");
  return { requests: requests / seconds, errors: grown("errors") / seconds, client: grown("client") / seconds, mean: requests ? grown("sum") / requests : NaN, p99: quantile(buckets, 0.99) };
};

// Rates between two scrapes: by route, by listener, and of all listeners together.
export const rates = (old, now) => {
  const seconds = Math.max(0.001, (now.at - old.at) / 1000);
  const each = (name) => new Map([...now[name]].map(([key, value]) => [key, between(old[name].get(key), value, seconds)]));
  const sum = (map) => {
    const total = { requests: 0, errors: 0, client: 0, sum: 0, buckets: new Map() };
    for (const it of map.values()) {
      for (const name of ["requests", "errors", "client", "sum"]) total[name] += it[name];
      for (const [bound, value] of it.buckets) total.buckets.set(bound, (total.buckets.get(bound) ?? 0) + value);
    }
    return total;
  };
  return { routes: each("routes"), listeners: each("listeners"), total: between(sum(old.listeners), sum(now.listeners), seconds) };
};
