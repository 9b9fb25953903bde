// What Node's official client does with responses in the background, at a gateway: base URL and key are the arguments;
// prints what it got as one line of JSON.
const OpenAI = require("openai");
(async () => {
  const client = new OpenAI({ baseURL: process.argv[2], apiKey: process.argv[3], maxRetries: 0 });
  const asked = { model: "scripted/chat", input: "Where is it?", background: true, max_output_tokens: 500 };
  let made = await client.responses.create(asked);
  const seen = [made.status];
  while (made.status === "queued" || made.status === "in_progress") {
    await new Promise((done) => setTimeout(done, 50));
    made = await client.responses.retrieve(made.id);
    seen.push(made.status);
  }
  const polled = { seen, text: made.output_text };

  const first = [], rest = [];
  let id, text = "", whole;
  const take = (event, numbers) => {
    numbers.push(event.sequence_number);
    if (event.type === "response.created") id = event.response.id;
    if (event.type === "response.output_text.delta") text += event.delta;
    if (event.type === "response.completed") {
      const parts = event.response.output.flatMap((item) => item.content);
      whole = parts.map((part) => part.text).join("");
    }
  };
  for await (const event of await client.responses.create({ ...asked, stream: true })) {
    take(event, first);
    if (first.length === 6) break; // the connection is cut
  }
  for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: first.at(-1) })) {
    take(event, rest);
  }

  const endless = await client.responses.create({ ...asked, model: "scripted/endless" });
  const status = (await client.responses.cancel(endless.id)).status;
  const found = (await client.responses.retrieve(endless.id)).status;
  let last;
  for await (const event of await client.responses.retrieve(endless.id, { stream: true })) last = event.type;
  await client.responses.delete(endless.id);
  const deleted = await client.responses.retrieve(endless.id).catch((error) => error.status);
  const cancelled = { status, found, last };
  console.log(JSON.stringify({ polled, resumed: { first, rest, text, whole }, cancelled, deleted }));
})();
