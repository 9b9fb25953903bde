"""Promise 3: a hard budget is never exceeded, not under concurrency, across workers, on streams, nor after a crash."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

from tests.acceptance.stack import Answer, installation, wait_until

TOKENS = 20
PRICE = "0/10"  # USD per million input/output tokens: a call with 20 output tokens costs 0.0002 USD
COST = Decimal("0.0002")


def test_two_hundred_equal_calls_on_a_budget_for_one_hundred(tmp_path: Path) -> None:
    with installation(tmp_path, workers=2, price=PRICE, budget=str(COST * 100)) as (stack, upstream):
        upstream.control(mode="ok", tokens=TOKENS, latency_ms=20)
        key = stack.key()

        def call(number: int) -> Answer:
            """Retried while the database is too slow to say whether the budget has room."""
            while True:
                answer = stack.chat(key, f"question {number}", timeout=120, max_tokens=TOKENS)
                if answer.status == 200 or answer.code != "budget_unreachable":
                    return answer

        with ThreadPoolExecutor(200) as pool:
            answers = list(pool.map(call, range(200)))
        served = [answer for answer in answers if answer.status == 200]
        refused = [answer for answer in answers if answer.status != 200]
        assert len(served) == 100
        assert {answer.status for answer in refused} == {429}
        assert {answer.code for answer in refused} == {"budget_exhausted"}
        assert all(answer.body["error"]["hint"] for answer in refused)
        assert len(upstream.counted()) == 100
        wait_until(lambda: stack.calls_in_ledger() == 100, 60, "100 calls are in the ledger")
        cost = stack.cli("cost")
        assert Decimal(cost["total_usd"]) == COST * 100
        assert cost["open_reservations"] == 0


def test_a_stream_is_charged_and_stopped_like_any_call(tmp_path: Path) -> None:
    with installation(tmp_path, price=PRICE, budget=str(COST * 3)) as (stack, upstream):
        upstream.control(mode="ok", tokens=TOKENS)
        key = stack.key()
        statuses = [stack.chat(key, f"q{n}", max_tokens=TOKENS, stream=True).status for n in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        wait_until(lambda: stack.calls_in_ledger() == 3, 60, "three calls are in the ledger")
        assert Decimal(stack.cli("cost")["total_usd"]) == COST * 3
