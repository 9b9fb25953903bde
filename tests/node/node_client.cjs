// Node's official client against a gateway: base URL and key are the arguments; prints what it got as one line of JSON.
const OpenAI = require("openai");
(async () => {
  const client = new OpenAI({ baseURL: process.argv[2], apiKey: process.argv[3], maxRetries: 0 });
  const messages = [{ role: "user", content: "Where is it?" }];
  const answer = await client.chat.completions.create({ model: "auto", messages });
  let text = "";
  let facts = null;
  for await (const chunk of await client.chat.completions.create({ model: "auto", messages, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? "";
    facts = chunk.groundplan ?? facts;
  }
  const response = await client.responses.create({ model: "auto", input: "Where is it?" });
  let events = 0;
  for await (const event of await client.responses.create({ model: "auto", input: "Where is it?", stream: true })) {
    if (event.sequence_number !== events) throw new Error(`event ${event.sequence_number} is out of order`);
    events += 1;
  }
  let code = "";
  try {
    await client.chat.completions.create({ model: "nobody", messages });
  } catch (error) {
    code = error.code;
  }
  const whole = answer.choices[0].message.content;
  console.log(JSON.stringify({ whole, text, deployment: facts.deployment, response: response.output_text, events, code }));
})();
