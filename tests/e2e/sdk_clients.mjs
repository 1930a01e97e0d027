// The JavaScript clients of docs/clients.md against the gateway at argv[2]; prints one JSON object.
import Anthropic from "@anthropic-ai/sdk";
import { createOpenAI } from "@ai-sdk/openai";
import { generateObject, generateText, streamText } from "ai";
import OpenAI from "openai";

const url = process.argv[2];
const model = "smollm2-135m";
const found = {};

const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused" });
const asked = { model, input: "Say hello.", max_output_tokens: 16 };
found.openai = (await openai.responses.create(asked)).output_text;
let last;
for await (const event of await openai.responses.create({ ...asked, stream: true })) last = event;
found.openaiStream = last.response.output_text ?? last.response.output[0].content[0].text;

const anthropic = new Anthropic({ baseURL: url, apiKey: "unused" });
const messages = [{ role: "user", content: "Say hello." }];
found.anthropic = (await anthropic.messages.create({ model, max_tokens: 16, messages })).content[0].text;
found.anthropicStream = (await anthropic.messages.stream({ model, max_tokens: 16, messages }).finalText());
found.anthropicTokens = String((await anthropic.messages.countTokens({ model, messages })).input_tokens);

const ai = createOpenAI({ baseURL: `${url}/v1`, apiKey: "unused" })(model);
const short = { model: ai, prompt: "Say hello.", maxOutputTokens: 16 };
found.ai = (await generateText(short)).text;
found.aiStream = "";
for await (const part of streamText(short).textStream) found.aiStream += part;
const states = ["on", "off"];
found.aiObject = (await generateObject({ model: ai, output: "enum", enum: states, prompt: "The lamp?" })).object;
console.log(JSON.stringify(found));
