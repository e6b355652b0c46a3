// The official Node client of OpenAI, unmodified, against a running host. As in clients.py, nothing depends on what the
// embedded model says.

import assert from "node:assert/strict";
import OpenAI from "openai";

const base = process.argv[2];
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "none", maxRetries: 0 });
const model = "default";
const messages = [{ role: "user", content: "Summarize: The host owns the model. Apps get tokens from it." }];
const parameters = {
  type: "object",
  properties: { city: { type: "string", maxLength: 16 }, days: { type: "integer" } },
  required: ["city", "days"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "weather", description: "The weather.", parameters } }];

const checks = {
  async "models are listed"() {
    const models = [];
    for await (const one of client.models.list()) models.push(one.id);
    assert.ok(models.length > 0);
  },
  async "a stream says what the whole answer says"() {
    const ask = { model, messages, temperature: 0, max_tokens: 40 };
    const whole = await client.chat.completions.create(ask);
    let text = "";
    for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
      text += chunk.choices[0]?.delta?.content ?? "";
    }
    assert.equal(text, whole.choices[0].message.content);
  },
  async "a required tool is called"() {
    const ask = {
      model, tools, tool_choice: "required", temperature: 0, max_tokens: 200,
      messages: [{ role: "user", content: "What is the weather in Oslo for 3 days?" }],
    };
    const stream = client.chat.completions.stream(ask);
    const final = await stream.finalChatCompletion();
    const call = final.choices[0].message.tool_calls[0];
    assert.equal(call.function.name, "weather");
    assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)).sort(), ["city", "days"]);
  },
  async "a stream can be aborted and the host goes on"() {
    const stream = await client.chat.completions.create({ model, messages, max_tokens: 400, stream: true });
    for await (const _ of stream) {
      stream.controller.abort();
      break;
    }
    const after = await client.chat.completions.create({ model, messages, max_tokens: 4 });
    assert.ok(after.choices.length === 1);
  },
  async "errors are of the right class"() {
    await assert.rejects(client.chat.completions.create({ model: "no-such", messages }), OpenAI.NotFoundError);
    await assert.rejects(client.chat.completions.create({ model, messages, temperature: 99 }), OpenAI.BadRequestError);
  },
  async "responses stream"() {
    const stream = await client.responses.create({ model, input: "Say hello.", max_output_tokens: 16, stream: true });
    const kinds = [];
    for await (const event of stream) kinds.push(event.type);
    assert.equal(kinds[0], "response.created");
    assert.ok(["response.completed", "response.incomplete"].includes(kinds.at(-1)), kinds.at(-1));
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok    node    ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  node    ${name}`);
    console.error(error);
  }
}
console.log(`node: ${Object.keys(checks).length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
