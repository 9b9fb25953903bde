"""`up` goes on where the control process dies just when everything is ready, and is ready once its own services are."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from groundplan.cli.client import ControlClient
from groundplan.cli.output import note
from groundplan.cli.progress import StartupProgress
from groundplan.cli.startup import Startup
from groundplan.cli.up import login_link, print_ready
from groundplan.core.endpoints import announce
from groundplan.core.home import Home
from groundplan.core.settings import load_settings


def test_a_control_process_that_is_away_costs_only_the_link(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert login_link(ControlClient(f"http://127.0.0.1:{port}", "token", timeout=1.0)) is None
    assert "groundplan login" in capsys.readouterr().err


@pytest.mark.parametrize("is_full", [False, True])
def test_it_serves_where_nobody_can_be_told_that_it_does(monkeypatch: pytest.MonkeyPatch, is_full: bool) -> None:
    """As on a full disk, or once the program that read its output has ended."""
    reader, pipe = os.pipe()
    os.close(reader)
    with os.fdopen(pipe, "w") as broken, Path("/dev/full").open("w") as full:
        output = full if is_full else broken
        monkeypatch.setattr(sys, "stdout", output)
        monkeypatch.setattr(sys, "stderr", output)
        note("! a warning")
        print_ready("ready")
        note("a link")


class Told(ControlClient):
    """Says that everything else is there."""

    def get(self, path: str, **_: Any) -> Any:
        assert path == "/api/status"
        gateways = [{"pid": 1, "ready": True, "blueprint": 3}, {"pid": os.getpid(), "ready": True, "blueprint": 3}]
        return {"gateways": gateways, "blueprint": 3, "services": ["search"], "indexed": True}


def test_a_service_that_an_earlier_up_left_behind_is_not_its_own(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    start, client = (
        Startup(home, load_settings({}), None, False, StartupProgress()),
        Told("http://127.0.0.1:9", "token"),
    )
    assert start.describe_missing(client, 0, {"search": None}) == "waiting for search"
    announce(home, "search", "http://127.0.0.1:9", "token")
    assert start.describe_missing(client, 0, {"search": 1}) == "waiting for search"
    assert start.describe_missing(client, 0, {"search": os.getpid()}) == ""


def test_a_worker_of_another_replica_is_not_its_own(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    announce(home, "search", "http://127.0.0.1:9", "token")
    start, client = (
        Startup(home, load_settings({}), None, False, StartupProgress()),
        Told("http://127.0.0.1:9", "token"),
    )
    search = {"search": os.getpid()}
    assert start.describe_missing(client, 2, {"gateway-0": os.getpid(), "gateway-1": 2, **search}).startswith(
        "1 of 2 gateway"
    )
    assert start.describe_missing(client, 1, {"gateway-0": os.getpid(), **search}) == ""
