// Every method of every resource of an official client for Node: name of the client, base URL and key are the arguments.
// Prints one line of JSON: of each method what became of a call of it, "works" or the code of the refusal.
const [library, baseURL, apiKey] = process.argv.slice(2);
const Client = require(library === "openai" ? "openai" : "@anthropic-ai/sdk");
const { toFile } = Client;
let heard = null;
const client = new Client({
  baseURL,
  apiKey,
  ...(library === "openai" ? { adminAPIKey: apiKey } : {}),
  maxRetries: 0,
  timeout: 30000,
  fetch: async (url, init) => {
    const answer = await fetch(url, init);
    const body = await answer.clone().text();
    heard = { asked: `${init.method} ${new URL(url).pathname}`, status: answer.status, body };
    return answer;
  },
});

const messages = [{ role: "user", content: "hello" }];
const chat = { model: "auto", messages, max_tokens: 9 };
const response = { model: "auto", input: "hello" };
const file = () => toFile(Buffer.from("hello"), "a.txt");
const image = () => toFile(Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), "a.png");
// of what is served, its body; of all others any, since they are refused before it is read
const BODIES = {
  "audio.speech.create": async () => ({ model: "auto", voice: "alloy", input: "hello" }),
  "audio.transcriptions.create": async () => ({ model: "auto", file: await file() }),
  "audio.translations.create": async () => ({ model: "auto", file: await file() }),
  "batches.create": async () => ({ input_file_id: "x", endpoint: "/v1/chat/completions", completion_window: "24h" }),
  "chat.completions.create": async () => chat,
  "chat.completions.parse": async () => chat,
  "chat.completions.stream": async () => chat,
  "chat.completions.runTools": async () => ({ ...chat, tools: [] }),
  "chat.completions.update": async () => ({ metadata: { a: "b" } }),
  "completions.create": async () => ({ model: "auto", prompt: "hello", max_tokens: 9 }),
  "embeddings.create": async () => ({ model: "auto", input: "hello" }),
  "files.create": async () => ({ file: await file(), purpose: "user_data" }),
  "files.upload": async () => ({ file: await file() }),
  "images.createVariation": async () => ({ image: await image() }),
  "images.edit": async () => ({ image: await image(), prompt: "hello" }),
  "images.generate": async () => ({ prompt: "hello" }),
  "messages.batches.create": async () => ({ requests: [{ custom_id: "a", params: chat }] }),
  "messages.countTokens": async () => ({ model: "auto", messages }),
  "messages.create": async () => chat,
  "messages.parse": async () => chat,
  "messages.stream": async () => chat,
  "messages.toolRunner": async () => ({ ...chat, tools: [] }),
  "moderations.create": async () => ({ input: "hello" }),
  "responses.create": async () => response,
  "responses.inputTokens.count": async () => response,
  "responses.parse": async () => response,
  "responses.stream": async () => response,
  "uploads.create": async () => ({ bytes: 5, filename: "a.txt", mime_type: "text/plain", purpose: "user_data" }),
};
const ANY = new Proxy({}, { get: (_, name) => (typeof name === "string" && name !== "then" && name !== "toJSON" ? "x" : undefined) });

function* methods(place, path) {
  const names = Object.getOwnPropertyNames(Object.getPrototypeOf(place));
  for (const name of names.sort()) {
    if (name !== "constructor" && !name.startsWith("_") && path.length && typeof place[name] === "function") yield [[...path, name].join("."), place];
  }
  for (const [name, below] of Object.entries(place)) {
    if (below && typeof below === "object" && "_client" in below && !name.startsWith("_")) yield* methods(below, [...path, name]);
  }
}

async function outcome(name, place) {
  heard = null;
  const method = place[name.split(".").at(-1)];
  const wanted = method.toString().replace(/^async /, "").match(/^[*\w]+\(([^)]*)\)/)?.[1] ?? "";
  const body = BODIES[name.replace(/^beta\./, "")];
  const given = [];
  for (const each of wanted.split(",").map((part) => part.trim().split(" ")[0])) {
    if (/^(body|params)$/.test(each)) given.push(body ? await body() : ANY);
    else if (/^(options|query|\{|\.\.\.|)$/.test(each)) break;
    else given.push(each === "file" ? await file() : /^model/i.test(each) ? "auto" : "x");
  }
  try {
    let found = await method.apply(place, given);
    if (found && typeof found.done === "function") await found.done();
    else if (found && found[Symbol.asyncIterator]) for await (const _ of found) break;
  } catch {
    // how it went is told by its answer
  }
  if (heard === null) return "";
  if (heard.status < 300) return "works";
  const { code, hint } = JSON.parse(heard.body).error;
  if (!code || !hint || code === "path_unknown" || heard.status >= 500) throw new Error(`${name}: ${JSON.stringify(heard)}`);
  return code;
}

(async () => {
  const found = {};
  for (const [name, place] of methods(client, [])) found[name] = await outcome(name, place);
  console.log(JSON.stringify(found));
})();
