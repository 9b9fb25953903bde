// What Node's official client puts together of a stream that calls tools: base URL, key and model are the arguments;
// prints it as one line of JSON.
const OpenAI = require("openai");
(async () => {
  const client = new OpenAI({ baseURL: process.argv[2], apiKey: process.argv[3], maxRetries: 0 });
  const messages = [{ role: "user", content: "Where is it?" }];
  const parameters = { type: "object", properties: { what: { type: "string" } } };
  const tools = [{ type: "function", function: { name: "look", parameters } }];
  const stream = client.chat.completions.stream({ model: process.argv[4], messages, tools, max_tokens: 20 });
  const choice = (await stream.finalChatCompletion()).choices[0];
  const calls = choice.message.tool_calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]);
  console.log(JSON.stringify({ role: choice.message.role, reason: choice.finish_reason, calls }));
})();
