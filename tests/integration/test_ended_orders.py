"""Orders that have ended, and what ends one whose provider does not answer any more."""

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
from tests.integration.test_batches import LINE, contents, create_batch, input_lines

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


async def test_an_order_is_given_up_a_month_after_its_batch_expired(world: World) -> None:
    world.script_provider(lines=1)
    batch = await create_batch(world.client, input_lines(3))
    await wait_until(lambda: world.order_state() == "sent")
    world.script_provider(mode="error", status=401, only="GET /v1/")
    world.make_orders_due()
    world.stack.sql("UPDATE batch SET expires_at = now() - interval '29 days'")
    ((tries,),) = world.stack.sql("SELECT tries FROM batch_order")
    await wait_until(lambda: world.stack.sql("SELECT tries FROM batch_order")[0][0] >= tries + 2)
    assert world.order_state() == "sent"
    world.stack.sql("UPDATE batch SET expires_at = now() - interval '31 days'")
    done = await wait_until_ended(world, batch.id)
    assert done.status == "completed" and completed_and_failed(done) == (0, 3)
    lost = await contents(world.client, done.error_file_id)
    assert [each["error"]["code"] for each in lost] == ["batch_line_lost"] * 3
    assert await world.settled_attempts() == (3, 3 * LINE)
