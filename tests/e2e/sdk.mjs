// Drives the gateway with OpenAI's JavaScript SDK; prints one JSON object for test_javascript.py.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "unused" });
const messages = [{ role: "user", content: "Hello" }];
const names = ["auto", "auto:accuracy", "phi-3-mini", "mistral-7b", "falcon-7b", "smollm2-135m"];
const seen = { unary: {}, streams: {} };

const failure = async (call) => {
  try {
    await call();
    return null;
  } catch (error) {
    const { name, status, code, type, param, message } = error;
    return { class: error.constructor.name, name, status, code, type, param, message };
  }
};

seen.models = [];
for await (const model of client.models.list()) seen.models.push(model.id);

for (const model of names) {
  const { data, response, request_id } = await client.chat.completions
    .create({ model, messages, max_tokens: 6, ignore_eos: true })
    .withResponse();
  seen.unary[model] = {
    model: data.model,
    header: response.headers.get("x-joulegate-model"),
    request_id,
    tokens: data.usage.completion_tokens,
  };

  const stream = await client.chat.completions.create({
    model,
    messages,
    max_tokens: 6,
    ignore_eos: true,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  seen.streams[model] = {
    model: chunks[0].model,
    text: chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join(""),
    finish: chunks.map((chunk) => chunk.choices[0]?.finish_reason).find(Boolean),
    tokens: chunks.at(-1).usage?.completion_tokens,
  };
}

const steered = await client.chat.completions.create(
  { model: "auto", messages, max_tokens: 4, joulegate: { weights: { accuracy: 1 } } },
  { headers: { "x-joulegate-explain": "true" } },
);
seen.steered = { model: steered.model, candidates: steered.joulegate.candidates.length };

const tool = {
  type: "function",
  function: {
    name: "switch",
    strict: true,
    parameters: {
      type: "object",
      properties: { state: { type: "string", enum: ["on", "off"] } },
      required: ["state"],
      additionalProperties: false,
    },
  },
};
const runner = client.chat.completions.stream({
  model: "auto",
  messages,
  max_tokens: 300,
  tools: [tool],
  tool_choice: { type: "function", function: { name: "switch" } },
});
const final = await runner.finalChatCompletion();
const call = final.choices[0].message.tool_calls[0].function;
seen.tool = { name: call.name, arguments: JSON.parse(call.arguments) };

const completion = await client.completions.create({ model: "auto", prompt: "Hi", max_tokens: 3 });
seen.completion = { object: completion.object, model: completion.model };

seen.unknown = await failure(() => client.chat.completions.create({ model: "nope", messages }));
seen.unknownStream = await failure(() =>
  client.chat.completions.create({ model: "nope", messages, stream: true }),
);
seen.embeddings = await failure(() =>
  client.embeddings.create({ model: "phi-3-mini", input: "Hello" }),
);
seen.header = await failure(() =>
  client.chat.completions.create(
    { model: "auto", messages },
    { headers: { "x-joulegate-weight-time": "nan" } },
  ),
);

const aborted = await client.chat.completions.create({
  model: "smollm2-135m",
  messages,
  max_tokens: 1000,
  ignore_eos: true,
  stream: true,
});
let count = 0;
for await (const _ of aborted) if (++count === 3) break; // leaving the loop aborts the request
seen.aborted = count;

console.log(JSON.stringify(seen));
