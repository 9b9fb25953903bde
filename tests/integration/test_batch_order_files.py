"""The files of an order, here and at its provider, once it has ended."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid5

from tests.integration.test_batch_orders import (
    World,
    completed_and_failed,
    wait_until,
    wait_until_ended,
    world,
)
from tests.integration.test_batches import contents, create_batch, input_lines

__all__ = ["world"]  # a fixture


async def test_files_at_the_provider_are_deleted_although_the_worker_is_killed(world: World) -> None:
    world.script_provider(mode="stall", only="DELETE /v1/files/")
    done = await wait_until_ended(world, (await create_batch(world.client, input_lines(3))).id)
    assert done.status == "completed" and world.model.batches.files
    ((order,),) = world.stack.sql("SELECT id FROM batch_order")
    sent, answered = (world.stack.home.root / "files" / str(uuid5(order, kind)) for kind in ("input", "0 output"))
    await wait_until(lambda: not sent.stat().st_size and not answered.exists())
    await world.replace_worker()
    world.script_provider()
    world.stack.sql("UPDATE batch_order SET ended_at = now() - interval '2 minutes'")
    await wait_until(lambda: world.model.batches.files == {})
    await wait_until(lambda: not sent.exists())
    assert completed_and_failed(done) == (3, 0) and len(await contents(world.client, done.output_file_id)) == 3
    await _check_given_up_order(world, sent)


async def _check_given_up_order(world: World, sent: Path) -> None:
    """Nothing of an order stays here although its provider has not deleted it for a week."""
    sent.write_text("a prompt")
    world.stack.sql("UPDATE batch_order SET ended_at = now() - interval '8 days'")
    await world.replace_worker()
    await wait_until(lambda: not sent.exists())
