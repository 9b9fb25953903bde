"""The scripted model as the process that demos and kill tests start: announced, controllable, counting durably."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from groundplan.core.endpoints import Endpoint, lookup
from groundplan.core.home import Home

NAME = "scripted-azure-sweden"


def ask(endpoint: Endpoint, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(endpoint.url.split("/")[2], timeout=60)
    headers = {"x-request-id": "call-0"} | ({"authorization": f"Bearer {token}"} if token else {})
    try:
        connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def test_it_announces_itself_obeys_and_counts_before_it_answers(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    count = tmp_path / "counted"
    command = [sys.executable, "-m", "groundplan.testing.scripted", "--home", str(home.root), "--name", NAME]
    process = subprocess.Popen([*command, "--count-file", str(count)])
    try:
        end = time.monotonic() + 60
        while (endpoint := lookup(home, NAME)) is None:
            assert time.monotonic() < end
            time.sleep(0.02)
        chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        assert ask(endpoint, "POST", "/v1/chat/completions", chat)[0] == 200
        assert count.read_text() == "call-0\n"
        assert ask(endpoint, "POST", "/control", {"mode": "stall"})[0] == 401
        assert ask(endpoint, "POST", "/control", {"mode": "odd"}, endpoint.token)[0] == 400
        assert ask(endpoint, "POST", "/control", {"mode": "error", "status": 429}, endpoint.token)[0] == 200
        assert ask(endpoint, "POST", "/v1/chat/completions", chat)[0] == 429
        assert ask(endpoint, "GET", "/counted")[1] == {"counted": 2}
        assert ask(endpoint, "GET", "/v1/models")[1]["data"][0]["id"] == NAME
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
