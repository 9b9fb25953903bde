"""Who reads the results of a batch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from openai import AsyncOpenAI
from tests.integration.gateway_stack import GROUNDING, blueprint, deployment, workload
from tests.integration.test_batches import Setup, create_batch, input_lines, setup, wait_until_ended

from groundplan.core.money import PICO

__all__ = ["setup"]


async def test_results_based_on_permissions_are_readable_only_by_the_person_they_were_made_for(setup: Setup) -> None:
    """What a batch came to may say what its person may read, and a colleague with a key of the workload may not."""
    stack, ana, ben = setup.stack, setup.stack.person("ana@acme.example"), setup.stack.person("ben@acme.example")
    keys = {"ana": stack.key(person=ana), "ben": stack.key(person=ben), "nobody": setup.key}
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{stack.port}/v1", api_key=keys["ana"]) as client:
        batch = await wait_until_ended(client, (await create_batch(client, input_lines(1))).id)
    results, shared = batch.output_file_id, await setup.client.files.create(file=input_lines(1), purpose="batch")

    async def readers() -> list[str]:
        """Who reads the results, and lists them."""
        found = []
        for name, key in keys.items():
            listed = {file["id"] for file in (await stack.ask("GET", "/v1/files", key)).json["data"]}
            reply = await stack.ask("GET", f"/v1/files/{results}/content", key)
            assert (results in listed, shared.id in listed) == (reply.status == 200, True), reply.body
            found += [name] if reply.status == 200 else []
        return found

    assert await readers() == ["ana", "ben", "nobody"]
    places = [deployment("one", setup.model_port), deployment("vectors", setup.model_port, kind="embeddings")]
    workloads = [workload("assistant", ["one"], embeddings=["vectors"], grounding=GROUNDING)]
    stack.apply(blueprint(2, places, workloads, limit=PICO // 100))
    await stack.wait_until_ready(2)
    assert await readers() == ["ana"]
    assert (await stack.ask("DELETE", f"/v1/files/{results}", keys["ben"])).status == 404
    reply = await stack.ask("GET", f"/v1/files?ids={results}", keys["ben"], anthropic_version="2023-06-01")
    assert (reply.status, reply.json["data"]) == (200, [])
    await _check_that_results_stay_hidden(setup, keys["ana"], readers)


async def _check_that_results_stay_hidden(setup: Setup, key: str, readers: Callable[[], Awaitable[list[str]]]) -> None:
    """Those of a batch that was made, or ended, while the workload had sources, once it has none any more."""
    stack = setup.stack
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{stack.port}/v1", api_key=key) as client:
        batch = await create_batch(client, input_lines(1))
        grounded = f"FROM batch WHERE id = '{batch.id.removeprefix('batch_')}' AND grounded"
        assert stack.sql(f"SELECT 1 {grounded}")
        stack.sql("UPDATE batch SET grounded = status = 'completed'")
        await client.batches.cancel(batch.id)
        await wait_until_ended(client, batch.id)
    assert stack.sql(f"SELECT 1 {grounded}")
    places = [deployment("one", setup.model_port), deployment("vectors", setup.model_port, kind="embeddings")]
    workloads = [workload("assistant", ["one"], embeddings=["vectors"])]
    stack.apply(blueprint(3, places, workloads, limit=PICO // 100))
    await stack.wait_until_ready(3)
    assert await readers() == ["ana"]
    stack.sql("UPDATE batch SET grounded = false")
    assert await readers() == ["ana", "ben", "nobody"]
