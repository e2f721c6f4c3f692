// The console in Chromium: what it shows, who is let in, that nothing in an answer is run, that it can
// be used without a mouse and read by a screen reader. Also takes the pictures of its page.
//
// A line for each claim; ends with 1 at the first that does not hold.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { chromium } from "playwright-core";

import { Gateway, TOKEN } from "./gateway.mjs";

const { values } = parseArgs({ options: { chromium: { type: "string" }, binaries: { type: "string" }, screenshots: { type: "string" } } });
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PAGES = ["overview", "topology", "backends", "configuration", "certificates", "ai", "limits", "explain"];

const gateway = new Gateway(values.binaries);
let browser;
let said = [];
// A browser that hangs does not say so by itself: opening a page has no limit of time.
const PATIENCE_MS = 180_000;
const claim = async (text, holds) => {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`"${text}" took longer than ${PATIENCE_MS} ms`)), PATIENCE_MS);
  });
  await Promise.race([holds(), late]).finally(() => clearTimeout(timer));
  console.log(`ok - ${text}`);
};
const picture = async (page, name) => {
  if (values.screenshots) await page.screenshot({ path: join(values.screenshots, `console-${name}.png`) });
};
const go = async (page, id, text) => {
  await page.goto(`${gateway.url()}/console#${id}`);
  await page.locator("#page").getByText(text).first().waitFor();
};

const main = async () => {
  await gateway.start();
  const rest = gateway.load();
  browser = await chromium.launch({ executablePath: values.chromium, args: ["--no-sandbox"] });
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 }, colorScheme: "light" });
  const page = await context.newPage();
  const asked = [];
  page.on("request", (request) => asked.push(request));
  page.on("console", (message) => { if (message.type() === "error") said.push(message.text()); });
  page.on("pageerror", (error) => said.push(String(error)));

  await claim("the token is asked for, and a wrong one is not the right one", async () => {
    await page.goto(`${gateway.url()}/`);
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    await page.getByLabel("Token of adminAuth").fill("wrong");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("That token is not the right one.").waitFor();
    assert.equal(await page.locator("#page").isVisible(), false);
    said = said.filter((line) => !line.includes("401"));
  });
  await claim("with the token it shows what is served", async () => {
    await page.getByLabel("Token of adminAuth").fill(TOKEN);
    await page.keyboard.press("Enter");
    await page.getByText("dp-console, version").waitFor();
    await page.getByText("● ready").waitFor();
  });
  await claim("the token is in this tab alone, and in no address", async () => {
    assert.equal(await page.evaluate(() => localStorage.length), 0);
    assert.equal(await page.evaluate(() => document.cookie), "");
    for (const request of asked) {
      assert.ok(request.url().startsWith(gateway.url()) || request.url().startsWith("data:"), `it asks elsewhere: ${request.url()}`);
      assert.ok(!request.url().includes(TOKEN), "the token is in an address");
    }
    const other = await context.newPage();
    await other.goto(`${gateway.url()}/console`);
    await other.getByRole("heading", { name: "Sign in" }).waitFor();
    await other.close();
    said = said.filter((line) => !line.includes("401"));
  });
  await claim("rates, latencies and errors are live", async () => {
    const requests = page.locator(".cards div", { hasText: "Requests" }).first().locator("dd");
    await gateway.until(async () => parseFloat((await requests.textContent()).replaceAll(",", "")) > 10, "requests are counted");
    const row = page.getByRole("row", { name: /shop\/search/ });
    await gateway.until(async () => /[1-9][\d.]* %/.test(await row.textContent()), "errors of the route are told");
    assert.match(await page.getByRole("row", { name: /shop\/cart/ }).textContent(), /\d ms/);
    await page.waitForTimeout(values.screenshots ? 20000 : 0);
    await picture(page, "overview");
  });
  await claim("topology leads from a listener to its endpoints", async () => {
    await go(page, "topology", "shop/cart");
    const listener = page.locator(".tree > li", { hasText: "shop/web/http" }).first();
    await listener.getByText("HTTPRoute").first().waitFor();
    const cart = listener.locator("li", { hasText: "shop/cart:80" }).first();
    assert.equal(await cart.locator("li", { hasText: "127.0.0.1:" }).locator("ul > li, :scope").count() > 0, true);
    await page.getByText("no endpoint").first().waitFor();
    await listener.locator("> .rate", { hasText: "/s" }).waitFor();
    await listener.locator("li", { hasText: "shop/cart" }).first().locator("> .rate", { hasText: " ms" }).waitFor();
    await picture(page, "topology");
  });
  await claim("certificates and their end are shown", async () => {
    await go(page, "certificates", "shop/cert");
    const row = page.getByRole("row", { name: /shop\/cert/ });
    assert.match(await row.textContent(), /ends soon.*cart\.example\.test/s);
  });
  await claim("what AI services used is shown, and nothing in an answer is run", async () => {
    await go(page, "ai", "shop/chat");
    await page.getByRole("row", { name: /shop\/chat\.aiservice openai tiny \d/ }).waitFor();
    await page.getByText('<img id="pwned"').first().waitFor();
    assert.equal(await page.locator("#pwned").count(), 0);
    assert.equal(await page.evaluate(() => globalThis.pwned), undefined);
    await picture(page, "ai");
  });
  await claim("a script in the markup is not run, and the page cannot be framed", async () => {
    const answer = await page.request.get(`${gateway.url()}/console`);
    const policy = answer.headers()["content-security-policy"];
    for (const part of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"]) assert.ok(policy.includes(part), policy);
    assert.ok(!policy.includes("unsafe"), policy);
    await page.evaluate(() => { const script = document.createElement("script"); try { script.textContent = "globalThis.inline = true"; } catch { return; } document.body.append(script); });
    assert.equal(await page.evaluate(() => globalThis.inline), undefined);
    said = said.filter((line) => !/TrustedScript|Content Security Policy|inline script/i.test(line));
  });
  await claim("a question is explained, or it is told that it cannot be", async () => {
    await go(page, "explain", "Which route takes a request");
    await page.getByLabel("Host", { exact: true }).fill("cart.example.test");
    await page.getByLabel("Path and query").fill("/checkout");
    await page.getByLabel("Port").fill(String(gateway.port));
    await page.getByLabel("Host", { exact: true }).press("Enter");
    await page.locator("#explained > *").first().waitFor();
    said = said.filter((line) => !/40[04]/.test(line));
  });
  await claim("such requests are watched as they end", async () => {
    await page.getByRole("button", { name: "Watch" }).click();
    await page.locator("#explained summary", { hasText: "cart.example.test" }).first().waitFor();
    await page.locator("#explained td", { hasText: "backend chosen" }).first().waitFor();
    await picture(page, "watch");
  });
  await claim("everything is reached by keyboard alone", async () => {
    await go(page, "overview", "Traffic");
    await page.reload();
    await page.getByText("dp-console, version").waitFor();
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
    const seen = new Set();
    for (let at = 0; at < 12 && !seen.has("Explain"); at += 1) {
      await page.keyboard.press("Tab");
      seen.add(await page.evaluate(() => document.activeElement.textContent));
    }
    for (const name of ["Pause", "Topology", "Explain"]) assert.ok(seen.has(name), `${name} among ${[...seen]}`);
    await page.keyboard.press("Enter");
    await page.waitForURL(/#explain$/);
    // The page moves the focus once it has heard of the new address.
    await page.locator("#main:focus").waitFor();
    await go(page, "backends", "Endpoints");
    await page.getByLabel("Namespace or name contains").fill("search");
    await page.keyboard.press("Enter");
    await gateway.until(async () => (await page.getByRole("row", { name: /shop\/cart/ }).count()) === 0, "others are gone");
    await page.getByRole("row", { name: /shop\/search/ }).first().waitFor();
    await page.getByLabel("Namespace or name contains").fill("");
    await page.keyboard.press("Enter");
    await page.getByRole("row", { name: /shop\/cart/ }).first().waitFor();
  });
  await claim("a configuration that is refused is told with its reason", async () => {
    await go(page, "configuration", "The last updates");
    await gateway.occupy();
    await page.getByText("refused").first().waitFor();
    await page.getByText("cannot bind").first().waitFor();
    await picture(page, "configuration");
  });
  await claim("it is dark where dark is wished for", async () => {
    const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await paper();
    await page.emulateMedia({ colorScheme: "dark" });
    assert.notEqual(await paper(), light);
    await go(page, "topology", "shop/cart");
    await picture(page, "dark");
    await page.emulateMedia({ colorScheme: "light" });
  });
  await claim("no page has a fault that axe finds, in light and in dark", async () => {
    for (const colorScheme of ["light", "dark"]) {
      const looked = await browser.newContext({ bypassCSP: true, colorScheme });
      const one = await looked.newPage();
      await one.addInitScript((token) => sessionStorage.setItem("token", token), TOKEN);
      for (const id of PAGES) {
        await one.goto(`${gateway.url()}/console#${id}`);
        await one.reload();
        await one.locator("#page h2").first().waitFor();
        await one.getByRole("button", { name: "Pause" }).click();
        await one.evaluate(AXE);
        const { violations } = await one.evaluate(() => globalThis.axe.run());
        assert.deepEqual(violations.map((it) => `${id}, ${colorScheme}: ${it.id}: ${it.nodes[0].html}`), []);
      }
      await looked.close();
    }
  });
  await claim("when nobody answers it says so, and goes on when somebody does", async () => {
    await go(page, "overview", "Traffic");
    await page.route("**/api/v1/summary", (route) => route.abort());
    await page.getByText("No answer:").waitFor();
    await page.unroute("**/api/v1/summary");
    await gateway.until(async () => (await page.locator("#live").textContent()) === "", "it goes on");
    said = said.filter((line) => !/Failed to load|ERR_FAILED/.test(line));
  });
  await claim("the browser has nothing to complain about", async () => assert.deepEqual(said, []));
  await rest();
};

try {
  await main();
} catch (error) {
  console.error(`not ok - ${error.stack}\n${said.join("\n")}`);
  process.exitCode = 1;
} finally {
  await browser?.close();
  gateway.stop();
}
process.exit(process.exitCode ?? 0);
