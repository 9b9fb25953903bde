"""What `up` writes while it starts: a bar only while something is fetched, and plain lines where nobody watches."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from groundplan.cli import startup
from groundplan.cli.listeners import Listeners
from groundplan.cli.progress import StartupProgress
from groundplan.cli.startup import Startup
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.runtime.supervisor import Supervisor

MIB = 1 << 20


class Terminal(io.StringIO):
    """Standard error as a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_is_left_alone_once_everything_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with StartupProgress() as progress:
        progress.report("database is ready")
        assert "\x1b[" not in terminal.getvalue(), "no bar before there is something to fetch"
        for done in (0, 40 * MIB):
            progress.update_download("small", done, 88 * MIB)
        end = time.monotonic() + 10
        while "small" not in terminal.getvalue() and time.monotonic() < end:
            time.sleep(0.05)
        assert "small" in terminal.getvalue() and "88.0/" not in terminal.getvalue().replace(" ", "")
        progress.update_download("small", 88 * MIB, 88 * MIB)
        progress.report("ready")
        told = terminal.getvalue()
        assert "model small is ready" in told and told.rstrip().endswith("ready")
        assert told.count("\x1b[?25l") == told.count("\x1b[?25h") == 1, "the cursor is shown again"
        time.sleep(0.3)
        assert terminal.getvalue() == told, "nothing is drawn while it serves"
        progress.update_download("later", 0, MIB)
        progress.update_download("later", MIB, MIB)
        assert "model later is ready" in terminal.getvalue(), "a later blueprint may need another model"


def test_without_a_terminal_each_model_is_told_at_its_start_and_once_at_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stderr", plain)
    with StartupProgress() as progress:
        for done in (0, 1, 2 * MIB):
            progress.update_download("small", done, 2 * MIB)
    lines = [line.partition("s  ")[2] for line in plain.getvalue().splitlines()]
    assert lines == ["model small: 0 of 2 MiB", "model small: 2 of 2 MiB"]


def test_what_cannot_be_said_ends_nothing_and_what_can_later_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with Path("/dev/full").open("w") as full, os.fdopen(writer, "w") as broken, StartupProgress() as progress:
        for stream in (full, broken):
            monkeypatch.setattr(sys, "stderr", stream)
            for _ in range(3):
                progress.report("postgres ended, restarted")
        monkeypatch.setattr(sys, "stderr", plain := io.StringIO())
        progress.report("x" * 200)
        for stream in (full, broken):  # what is left in them has nowhere to go
            with pytest.raises(OSError):
                stream.close()
    assert plain.getvalue().partition("s  ")[2] == "x" * 200 + "\n", "a line is one line, however long"


@pytest.mark.parametrize(
    "status", [{"indexed": False}, {"indexed": True}, {"indexed": False, "services": ["embedded"]}]
)
def test_it_serves_while_many_documents_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: dict[str, Any]
) -> None:
    """Embedding a hundred thousand passages takes half an hour: it ended everything after three minutes."""

    class Status(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"gateways": [], "blueprint": None, "services": [], **status}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    home = Home(tmp_path)
    home.create()
    (tmp_path / "operator.token").write_text("a token")
    monkeypatch.setattr(startup, "READY_SECONDS", 0.5)
    monkeypatch.setattr(startup, "NOTICE_SECONDS", 0.1)
    (home.logs / "gateway-0.log").write_text("there is no room in the journal\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Status)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with (
        server,
        socket.create_server(("127.0.0.1", 0)) as public,
        StartupProgress() as progress,
        Supervisor(home) as supervisor,
    ):
        monkeypatch.setattr(supervisor, "states", lambda: [SimpleNamespace(name="gateway-0", pid=1, starts=1)])
        start = Startup(home, load_settings(), None, False, progress)
        listeners = Listeners(public, server.socket, "127.0.0.1")
        if "services" in status:
            with pytest.raises(Unavailable, match="waiting for embedded"):
                start.wait_until_ready(supervisor, listeners, 0)
        else:
            start.wait_until_ready(supervisor, listeners, 0)
        server.shutdown()
    told = capsys.readouterr().err
    assert ("search finds what is there already" in told) == (status == {"indexed": False})
    assert told.count("waiting for embedded; gateway-0 said: there is no room in the journal") == ("services" in status)
