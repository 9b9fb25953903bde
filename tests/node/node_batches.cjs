// Node's official client with files, batches, embeddings and moderations: base URL and key are the arguments; prints what
// it got as one line of JSON.
const OpenAI = require("openai");
(async () => {
  const client = new OpenAI({ baseURL: process.argv[2], apiKey: process.argv[3], maxRetries: 0 });
  const line = (n) => ({
    custom_id: `n${n}`, method: "POST", url: "/v1/chat/completions",
    body: { model: "auto", max_tokens: 20, messages: [{ role: "user", content: `q${n}` }] },
  });
  const upload = (count) => client.files.create({
    file: new File([[...Array(count).keys()].map((n) => JSON.stringify(line(n))).join("\n")], "calls.jsonl"),
    purpose: "batch",
  });
  const order = (file) => client.batches.create({
    input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h",
  });
  let batch = await order(await upload(2));
  while (!["completed", "failed", "expired", "cancelled"].includes(batch.status)) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    batch = await client.batches.retrieve(batch.id);
  }
  const text = await (await client.files.content(batch.output_file_id)).text();
  const names = text.trim().split("\n").map((each) => JSON.parse(each).custom_id).sort();
  let listed = false;
  for await (const each of client.batches.list()) listed = listed || each.id === batch.id;
  const vectors = (await client.embeddings.create({ model: "auto", input: ["a", "b"] })).data.length;
  const judged = await client.moderations.create({ model: "judge", input: ["hello", "attack"] });
  const spare = await upload(1);
  const deleted = (await client.files.delete(spare.id)).deleted;
  const cancelled = (await client.batches.cancel((await order(await upload(40))).id)).status; // not over by then
  const flagged = judged.results.map((each) => each.flagged);
  console.log(JSON.stringify({ status: batch.status, names, listed, vectors, flagged, deleted, cancelled }));
})();
