// Completions, images and audio by Node's official client at a gateway: base URL and key are the arguments; prints what
// it got as one line of JSON.
const OpenAI = require("openai");
(async () => {
  const client = new OpenAI({ baseURL: process.argv[2], apiKey: process.argv[3], maxRetries: 0 });
  const completion = await client.completions.create({ model: "chat", prompt: "Where is it?", max_tokens: 20 });
  let text = "";
  for await (const part of await client.completions.create({ model: "chat", prompt: "Where is it?", stream: true })) {
    text += part.choices[0]?.text ?? "";
  }
  const images = await client.images.generate({ model: "painter", prompt: "a house", n: 2, size: "1024x1024" });
  const image = await OpenAI.toFile(Buffer.from("\x89PNG"), "a.png", { type: "image/png" });
  const edited = await client.images.edit({ model: "painter", image, prompt: "brighter", size: "512x512" });
  const spoken = await client.audio.speech.create({ model: "voice", input: "hello", voice: "alloy" });
  const sound = await OpenAI.toFile(Buffer.alloc(1_900_000, 1), "long.wav", { type: "audio/wav" });
  const heard = await client.audio.transcriptions.create({ file: sound, model: "ear", response_format: "verbose_json" });
  const checked = await client.moderations.create({ model: "judge", input: "hello" });
  console.log(
    JSON.stringify({
      completion: completion.choices[0].text.trim(),
      text: text.trim(),
      images: images.data.length,
      cost: images.groundplan.cost_usd,
      edited: edited.data.length,
      spoken: (await spoken.arrayBuffer()).byteLength,
      heard: typeof heard.text,
      duration: heard.duration > 0,
      flagged: checked.results[0].flagged,
    }),
  );
})();
