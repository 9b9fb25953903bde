"""`up` goes on where the control process dies just when everything is ready."""

from __future__ import annotations

import socket

import pytest

from groundplan.cli.client import ControlClient
from groundplan.cli.up import login_link


def test_a_control_process_that_is_away_costs_only_the_link(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert login_link(ControlClient(f"http://127.0.0.1:{port}", "token", timeout=1.0)) is None
    assert "groundplan login" in capsys.readouterr().err
