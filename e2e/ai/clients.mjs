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
  async errors() {
    await assert.rejects(ask("fail 400"), OpenAI.BadRequestError);
    await assert.rejects(ask("fail 429"), OpenAI.RateLimitError);
    await assert.rejects(async () => {
      for await (const _ of await ask("break with an error", { stream: true }));
    }, OpenAI.APIError);
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
