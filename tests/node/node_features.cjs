// What Node's official client sends beside plain chat, at a gateway: base URL and key are the arguments; prints what it
// got as one line of JSON.
const OpenAI = require("openai");
(async () => {
  const client = new OpenAI({ baseURL: process.argv[2], apiKey: process.argv[3], maxRetries: 0 });
  const messages = [{ role: "user", content: "Where is it?" }];
  const parameters = { type: "object", properties: { what: { type: "string" } }, required: ["what"] };
  const tools = [{ type: "function", function: { name: "look", parameters } }];
  const called = await client.chat.completions.create({ model: "auto", messages, tools, tool_choice: "required" });
  let streamed = "";
  for await (const chunk of await client.chat.completions.create({ model: "auto", messages, tools, stream: true })) {
    streamed += chunk.choices[0]?.delta?.tool_calls?.[0]?.function?.arguments ?? "";
  }
  const schema = { type: "object", properties: { place: { type: "string" } }, required: ["place"] };
  const response_format = { type: "json_schema", json_schema: { name: "place", schema } };
  const parsed = await client.chat.completions.parse({ model: "auto", messages, response_format });
  const several = await client.chat.completions.create({ model: "auto", messages, n: 3, logprobs: true, top_logprobs: 2 });
  const content = [
    { type: "text", text: "What?" },
    { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } },
  ];
  const seen = await client.chat.completions.create({ model: "auto", messages: [{ role: "user", content }] });
  const file = { filename: "a.pdf", file_data: "data:application/pdf;base64,JVBERi0xLjQK" };
  const read = [{ role: "user", content: [{ type: "text", text: "What?" }, { type: "file", file }] }];
  const told = await client.chat.completions.create({ model: "scripted/reader", messages: read, max_tokens: 10 });
  const look = { name: "look", description: "Look", parameters, parse: JSON.parse, function: ({ what }) => `${what} is there` };
  const runner = client.chat.completions.runTools({ model: "auto", messages, tools: [{ type: "function", function: look }] });
  const ran = await runner.finalContent();
  console.log(
    JSON.stringify({
      called: called.choices[0].message.tool_calls[0].function,
      streamed,
      parsed: parsed.choices[0].message.parsed,
      indexes: several.choices.map((choice) => choice.index),
      logprob: several.choices[2].logprobs.content[0].logprob,
      seen: seen.choices[0].message.content,
      reader: told.groundplan.deployment,
      ran,
    }),
  );
})();
