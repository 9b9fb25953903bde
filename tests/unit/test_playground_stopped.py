"""A question asked in the playground while the gateway is stopped."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from groundplan.api.caller import Caller
from groundplan.api.calls import ask
from groundplan.api.calls.playground import ask_in_playground
from groundplan.core.errors import Unavailable


def test_a_stopped_gateway_is_told_within_seconds_and_gets_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket takes the connection, as that of a stopped process does."""
    monkeypatch.setattr(ask, "LIVE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:

        class Services:
            def gateway(self) -> str:
                return f"http://127.0.0.1:{silent.getsockname()[1]}/v1"

            def transaction(self) -> Any:
                raise AssertionError("a key would be created")

        services: Any = Services()
        with pytest.raises(Unavailable) as told:
            ask_in_playground(services, Caller("operator", None, None, "operator", operator=True), "a", "Why?", 9)
    assert told.value.code == "gateway_unreachable" and "groundplan status" in (told.value.hint or "")
