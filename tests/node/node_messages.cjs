// Anthropic's official client for Node against a gateway: base URL, key and model are the arguments; prints what it got
// as one line of JSON.
const Anthropic = require("@anthropic-ai/sdk");
const { betaTool } = require("@anthropic-ai/sdk/helpers/beta/json-schema");
(async () => {
  const [baseURL, apiKey, model] = process.argv.slice(2);
  const client = new Anthropic({ baseURL, apiKey, maxRetries: 0 });
  const messages = [{ role: "user", content: "Where is it?" }];
  const asked = { model, max_tokens: 50, messages };
  const answer = await client.messages.create(asked);
  const tools = [{ name: "look", description: "Look", input_schema: { type: "object", properties: {} } }];
  const stream = client.messages.stream({ ...asked, tools });
  let text = "";
  stream.on("text", (piece) => (text += piece));
  const final = await stream.finalMessage();
  const kinds = [];
  for await (const event of await client.messages.create({ ...asked, stream: true })) kinds.push(event.type);
  const counted = await client.messages.countTokens({ model, messages });
  const models = [];
  for await (const each of client.models.list()) models.push(each.id);
  const refused = {};
  for (const [name, wrong] of Object.entries({ model: { model: "nobody" }, cap: { max_tokens: -1 } })) {
    try {
      await client.messages.create({ ...asked, ...wrong });
    } catch (error) {
      refused[name] = [error.constructor.name, error.status, error.error.error.code];
    }
  }
  try {
    await new Anthropic({ baseURL, apiKey: "gp_wrong", maxRetries: 0 }).messages.create(asked);
  } catch (error) {
    refused.key = [error.constructor.name, error.status, error.error.error.code];
  }
  const token = new Anthropic({ baseURL, apiKey: null, authToken: apiKey, maxRetries: 0 });
  const again = await token.messages.create(asked);
  const run = betaTool({ name: "look", description: "Look", inputSchema: tools[0].input_schema, run: () => "here" });
  const ran = await client.beta.messages.toolRunner({ ...asked, tools: [run], max_iterations: 2 });
  const seen = { ran: ran.stop_reason, whole: answer.content[0].text, text, tool: final.content.at(-1).input, stop: final.stop_reason };
  const same = answer._request_id === answer.groundplan.call_id;
  const ends = [kinds[0], kinds.at(-1)];
  console.log(
    JSON.stringify({ ...seen, same, ends, counted: counted.input_tokens, models, refused, again: again.content[0].text }),
  );
})();
