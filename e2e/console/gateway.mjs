// A gateway to look at: the shim with manifests of its own, a data plane with a token, backends.
//
// main.mjs starts it and ends it. Ports are the kernel's choice; everything lies in a folder that goes
// with it.

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const TOKEN = "open-sesame";
// Would be an element, if anything of an answer became markup.
export const HOSTILE = '<img id="pwned" src="x" onerror="globalThis.pwned = true">';

const listen = (server) => new Promise((ready) => server.listen(0, "127.0.0.1", () => ready(server.address().port)));

export const freePort = async () => {
  const server = createServer();
  const port = await listen(server);
  await new Promise((closed) => server.close(closed));
  return port;
};

const document = (kind, name, spec, group = "gateway.networking.k8s.io/v1") =>
  JSON.stringify({ apiVersion: group, kind, metadata: { name, namespace: "shop" }, ...spec });

const backend = (name, ports) => [
  document("Service", name, { spec: { ports: [{ name: "http", port: 80 }] } }, "v1"),
  ...ports.map((port, at) => JSON.stringify({
    apiVersion: "discovery.k8s.io/v1", kind: "EndpointSlice",
    metadata: { name: `${name}-${at}`, namespace: "shop", labels: { "kubernetes.io/service-name": name } },
    addressType: "IPv4", ports: [{ name: "http", port }],
    endpoints: [{ addresses: ["127.0.0.1"], conditions: { ready: true } }],
  })),
];

const route = (name, host, rules) => document("HTTPRoute", name, { spec: { parentRefs: [{ name: "web" }], hostnames: [host], rules } });

export class Gateway {
  constructor(binaries) {
    this.binaries = binaries;
    this.folder = mkdtempSync(join(tmpdir(), "console-"));
    this.children = [];
    this.servers = [];
  }

  async start() {
    const good = await this.serve((_, answer) => setTimeout(() => answer.end("hello\n"), 3 + 20 * Math.random()));
    const shaky = await this.serve((_, answer) => { answer.statusCode = Math.random() < 0.5 ? 500 : 200; answer.end("perhaps\n"); });
    const model = await this.serve((request, answer) => {
      request.resume();
      answer.setHeader("content-type", "application/json");
      answer.end(JSON.stringify({ id: "1", object: "chat.completion", created: 1, model: "tiny", choices: [{ index: 0, message: { role: "assistant", content: "Hello." }, finish_reason: "stop" }], usage: { prompt_tokens: 21, completion_tokens: 7, total_tokens: 28 } }));
    });
    [this.port, this.tlsPort, this.control, this.controlAdmin, this.admin] = await Promise.all(Array.from({ length: 5 }, freePort));
    this.certificate();
    this.routes = [
      ...backend("cart", [good, await this.serve((_, answer) => setTimeout(() => answer.end("hello\n"), 5))]),
      ...backend("search", [shaky]), ...backend("empty", []),
      route("cart", "cart.example.test", [{ backendRefs: [{ name: "cart", port: 80 }] }]),
      route("search", "search.example.test", [{ backendRefs: [{ name: "search", port: 80 }] }]),
      route("broken", "broken.example.test", [{ backendRefs: [{ name: "empty", port: 80 }] }]),
      route("chat", "chat.example.test", [{ backendRefs: [{ group: "gateway.nantian.dev", kind: "AIService", name: "chat" }] }]),
      document("AIService", "chat", { spec: { provider: "openai", model: "tiny", aliases: { gpt: "tiny" }, endpoint: `http://127.0.0.1:${model}/v1` } }, "gateway.nantian.dev/v1alpha1"),
      document("AIService", "hostile", { spec: { provider: "openai", model: HOSTILE, endpoint: `http://127.0.0.1:${model}/v1` } }, "gateway.nantian.dev/v1alpha1"),
      document("TokenPolicy", "all", { spec: { targetRefs: [{ group: "gateway.nantian.dev", kind: "AIService", name: "chat" }], tokensPerMinute: 5000, scope: "global" } }, "gateway.nantian.dev/v1alpha1"),
      route("hostile", "hostile.example.test", [{ backendRefs: [{ group: "gateway.nantian.dev", kind: "AIService", name: "hostile" }] }]),
    ];
    this.write(this.routes);
    writeFileSync(join(this.folder, "dataplane.yaml"), JSON.stringify({
      nodeId: "dp-console", controlPlaneAddr: `http://127.0.0.1:${this.control}`, xdsTls: { enabled: false },
      adminAddr: `127.0.0.1:${this.admin}`, adminAuth: { bearerToken: TOKEN }, accessLog: { enabled: false }, log: { level: "warn" },
    }));
    this.run("nantian-shim", ["--log", "error", "serve", join(this.folder, "manifests.yaml"), "--grpc-addr", `127.0.0.1:${this.control}`, "--admin-addr", `127.0.0.1:${this.controlAdmin}`]);
    this.run("nantian-dataplane", ["--config", join(this.folder, "dataplane.yaml")]);
    await this.until(async () => (await fetch(`${this.url()}/readyz`)).status === 200, "the data plane is ready");
  }

  url() { return `http://127.0.0.1:${this.admin}`; }

  // The Gateway with its listeners, and what else there is.
  write(documents, listeners = []) {
    const all = [
      document("GatewayClass", "nantian-gw", { spec: { controllerName: "gateway.networking.k8s.io/nantian-gw" } }),
      document("Gateway", "web", { spec: { gatewayClassName: "nantian-gw", listeners: [
        { name: "http", protocol: "HTTP", port: this.port },
        { name: "https", protocol: "HTTPS", port: this.tlsPort, tls: { mode: "Terminate", certificateRefs: [{ name: "cert" }] } },
        ...listeners,
      ] } }),
      this.secret, ...documents,
    ];
    writeFileSync(join(this.folder, "manifests.yaml"), all.join("\n---\n"));
  }

  certificate() {
    const [cert, key] = ["cert.pem", "key.pem"].map((name) => join(this.folder, name));
    execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9", "-subj", "/CN=console test",
      "-addext", "subjectAltName=DNS:cart.example.test,DNS:*.example.test", "-keyout", key, "-out", cert], { stdio: "ignore" });
    const base64 = (path) => execFileSync("base64", ["-w0", path]).toString();
    this.secret = document("Secret", "cert", { type: "kubernetes.io/tls", data: { "tls.crt": base64(cert), "tls.key": base64(key) } }, "v1");
  }

  // A listener on a port that somebody else has, which the data plane refuses.
  async occupy() {
    const port = await this.serve((_, answer) => answer.end());
    this.write(this.routes, [{ name: "taken", protocol: "HTTP", port }]);
  }

  // Requests, until it is said to stop.
  load() {
    let isOver = false;
    const agent = new http.Agent({ keepAlive: true });
    const ask = (host, path = "/", body = null) => new Promise((done) => {
      const request = http.request({ host: "127.0.0.1", port: this.port, path, agent, method: body ? "POST" : "GET", headers: { host, ...(body ? { "content-type": "application/json" } : {}) } },
        (answer) => { answer.resume(); answer.on("end", done); answer.on("error", done); });
      request.on("error", done);
      request.end(body);
    });
    const go = async () => {
      while (!isOver) {
        await Promise.all([ask("cart.example.test"), ask("cart.example.test", "/checkout"), ask("search.example.test"), Math.random() < 0.2 ? ask("broken.example.test") : null, Math.random() < 0.2 ? ask("unknown.example.test") : null,
          Math.random() < 0.3 ? ask("chat.example.test", "/v1/chat/completions", JSON.stringify({ model: "gpt", messages: [{ role: "user", content: "hi" }] })) : null]);
        await new Promise((wait) => setTimeout(wait, 25));
      }
    };
    const going = go();
    return async () => { isOver = true; await going; agent.destroy(); };
  }

  async serve(answer) {
    const server = http.createServer(answer);
    this.servers.push(server);
    return listen(server);
  }

  run(program, words) {
    const child = spawn(join(this.binaries, program), words, { stdio: ["ignore", "ignore", "inherit"] });
    child.on("error", (error) => { console.error(`${program} cannot be started: ${error.message}; build it with cargo build --workspace`); process.exit(1); });
    this.children.push(child);
  }

  async until(holds, claim) {
    for (const deadline = Date.now() + 20000; Date.now() < deadline; await new Promise((wait) => setTimeout(wait, 50))) {
      try { if (await holds()) return; } catch { /* not yet */ }
    }
    throw new Error(`in time, ${claim}`);
  }

  stop() {
    for (const child of this.children) child.kill("SIGKILL");
    for (const server of this.servers) { server.closeAllConnections(); server.close(); }
    rmSync(this.folder, { recursive: true, force: true });
  }
}
