"""What `up` does beside keeping processes alive holds that up for nobody."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from groundplan.cli.client import ControlClient
from groundplan.cli.progress import Steps
from groundplan.cli.starting import FOLLOW_SECONDS, Following, Start
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.runtime.supervisor import Supervisor


def test_a_control_process_that_hangs_keeps_nothing_from_being_started_again(tmp_path: Path) -> None:
    """As where PostgreSQL says nothing: a worker that dies meanwhile is replaced within a second all the same."""
    home = Home(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = ControlClient(f"http://127.0.0.1:{silent.getsockname()[1]}", "token")
        start = Start(home, load_settings({}), None, False, Steps())
        following = Following(start, Supervisor(home), client)
        time.sleep(FOLLOW_SECONDS)
        began = time.monotonic()
        for _ in range(5):
            following.tick()
        assert time.monotonic() - began < FOLLOW_SECONDS / 2
        asked, _ = silent.accept()
        with asked:
            assert asked.recv(100).startswith(b"GET /api/status ")
