// Completions, images and audio by Node's official client at a gateway: base URL, key and the path of a new file are the
// arguments; prints what
// it got as one line of JSON.
const fs = require("node:fs");
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
  // larger than what is kept, and before the fields that say what is wanted, as in OpenAI's examples
  const path = process.argv[4];
  fs.writeFileSync(path, Buffer.alloc(1_500_000, 1));
  const read = () => fs.createReadStream(path);
  const written = await client.audio.transcriptions.create({ file: read(), model: "scribe", response_format: "text" });
  const wanted = { model: "painter", n: 2, size: "512x512" };
  const drawn = await client.images.edit({ image: read(), prompt: "x", ...wanted });
  const varied = await client.images.createVariation({ image: await OpenAI.toFile(read(), "a.png"), ...wanted });
  const checked = await client.moderations.create({ model: "judge", input: "hello" });
  console.log(
    JSON.stringify({
      completion: completion.choices[0].text.trim(),
      text: text.trim(),
      images: images.data.length,
      cost: images.groundplan.cost_usd,
      edited: edited.data.length,
      spoken: (await spoken.arrayBuffer()).byteLength,
      written,
      drawn: drawn.data.length,
      varied: varied.data.length,
      heard: typeof heard.text,
      duration: heard.duration > 0,
      flagged: checked.results[0].flagged,
    }),
  );
})();
