// A conversation by Node's official client, as it is in a browser too: base URL and key are the arguments; prints what it
// heard as one line of JSON.
const OpenAI = require("openai");
const { OpenAIRealtimeWebSocket } = require("openai/realtime/websocket");
const client = new OpenAI({ baseURL: process.argv[2], apiKey: process.argv[3] });
const talk = new OpenAIRealtimeWebSocket({ model: "talker", dangerouslyAllowBrowser: true }, client);
let text = "";
talk.on("error", (error) => {
  throw error;
});
talk.on("session.created", () => {
  const content = [{ type: "input_text", text: "hello there" }];
  talk.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
  talk.send({ type: "response.create" });
});
talk.on("response.output_text.delta", (event) => (text += event.delta));
talk.on("response.done", (event) => {
  console.log(JSON.stringify({ text: text.trim(), status: event.response.status, deployment: event.groundplan.deployment }));
  talk.close();
});
