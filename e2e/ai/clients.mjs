// npm openai through the gateway, for main.py: node clients.mjs BASE_URL PROVIDER. One line a case.

import assert from "node:assert/strict";
import OpenAI from "openai";

const [baseURL, provider] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "of-the-client", maxRetries: 0, timeout: 20_000 });
const ask = (text, more = {}) =>
  client.chat.completions.create({ model: "default", messages: [{ role: "user", content: text }], ...more });
const TEXT = "Hello, wörld 🌍!";
const tool = {
  type: "function",
  function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
};

const cases = {
  async chat() {
    const answer = await ask("say hello");
    assert.equal(answer.choices[0].message.content, TEXT);
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.equal(answer.usage.total_tokens, 18);
  },
  async stream() {
    let said = "", usage;
    const stream = await ask("say hello", { stream: true, stream_options: { include_usage: true } });
    for await (const chunk of stream) {
      said += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(said, TEXT);
    assert.equal(usage.completion_tokens, 7);
  },
  async tools() {
    const question = { role: "user", content: "weather of both" };
    const answer = await client.chat.completions.create({ model: "default", messages: [question], tools: [tool] });
    const { message, finish_reason } = answer.choices[0];
    assert.equal(finish_reason, "tool_calls");
    assert.deepEqual(message.tool_calls.map((call) => JSON.parse(call.function.arguments).city), ["Paris", "Köln"]);
    const results = message.tool_calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: "21" }));
    const messages = [question, message, ...results];
    const then = await client.chat.completions.create({ model: "default", messages, tools: [tool] });
    assert.equal(then.choices[0].message.content, "It is 21 degrees in Paris");
  },
  async toolsStream() {
    const runner = client.chat.completions.stream({
      model: "default", messages: [{ role: "user", content: "weather of both" }], tools: [tool],
    });
    const final = await runner.finalChatCompletion();
    const calls = final.choices[0].message.tool_calls;
    assert.equal(final.choices[0].finish_reason, "tool_calls");
    assert.deepEqual(calls.map((call) => JSON.parse(call.function.arguments).city), ["Paris", "Köln"]);
  },
  async structured() {
    const schema = {
      type: "object", properties: { name: { type: "string" }, age: { type: "integer" } },
      required: ["name", "age"], additionalProperties: false,
    };
    const answer = await ask("who?", {
      response_format: { type: "json_schema", json_schema: { name: "person", schema, strict: true } },
    });
    assert.deepEqual(JSON.parse(answer.choices[0].message.content), { name: "Ada", age: 36 });
  },
  async vision() {
    const url = `data:image/png;base64,${Buffer.alloc(68, 7).toString("base64")}`;
    const content = [{ type: "text", text: "what is it?" }, { type: "image_url", image_url: { url } }];
    const answer = await client.chat.completions.create({ model: "default", messages: [{ role: "user", content }] });
    const kind = provider === "ollama" ? "an image" : "image/png";
    assert.equal(answer.choices[0].message.content, `I see ${kind} of 68 bytes`);
  },
  async errors() {
    for (const [status, kind] of [
      [400, OpenAI.BadRequestError], [401, OpenAI.AuthenticationError], [404, OpenAI.NotFoundError],
      [429, OpenAI.RateLimitError], [500, OpenAI.InternalServerError],
    ]) {
      await assert.rejects(ask(`fail ${status}`), kind);
    }
    for (const way of ["break with an error", "break without a word"]) {
      let finish = null;
      await assert.rejects(async () => {
        for await (const chunk of await ask(way, { stream: true })) finish ??= chunk.choices[0]?.finish_reason;
      });
      assert.equal(finish, null);
    }
  },
  async abort() {
    const stream = await ask("say hello", { stream: true });
    for await (const _ of stream) break;
    stream.controller.abort();
  },
};

for (const [name, run] of Object.entries(cases)) {
  await run();
  console.log(`ok     npm openai ${name} -> ${provider}`);
}
