"""Promise 11: any change of configuration can be undone by one command, and undoing never revives what was revoked."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.stack import installation, wait_until
from tests.acceptance.test_promise_02_declared import edit


def test_rollback_makes_the_next_number_and_revives_no_key(tmp_path: Path) -> None:
    with installation(tmp_path, budget="1000") as (stack, _upstream):
        first = stack.cli("status")["blueprint"]
        old = stack.cli("keys", "create", "--workload", "assistant")
        stack.wait_until_effective(old["effective"])
        assert stack.chat(old["key"]).status == 200
        edit(stack, "1000 USD", "900 USD")
        assert stack.cli("apply")["blueprint"] == first + 1
        stack.wait_until_effective(stack.cli("keys", "revoke", old["id"], code=None)["effective"])
        refused = stack.chat(old["key"])
        assert refused.status == 401
        undone = stack.cli("rollback")
        assert undone["blueprint"] == first + 2
        wait_until(lambda: stack.serves_blueprint(first + 2), 30, "the gateways took the new blueprint up")
        assert stack.chat(old["key"]).status == 401
        assert stack.chat(stack.key()).status == 200
