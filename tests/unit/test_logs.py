"""Logs are one JSON object a line, whatever is logged, and hold no secret."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.logger import get_logger
from groundplan.core.logs import MAX_CHARACTERS, JsonLinesFormatter, RepeatedWarnings, format_line, redact_secrets
from groundplan.identity.keys import make_key
from groundplan.runtime.child import tail, trim

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@given(st.text(), st.dictionaries(st.text(max_size=10), st.text() | st.integers() | st.none() | st.floats(0, 1)))
def test_any_event_is_one_line_of_printable_ascii(event: str, fields: dict[str, Any]) -> None:
    told = format_line(NOW, "INFO", "gateway", "x", event, fields)
    assert told.isascii() and told.isprintable()
    body = json.loads(told)
    assert {"at", "level", "process", "logger", "event"} <= set(body)
    assert body["level"] == "info" and body["process"] == "gateway", "a field never replaces what the line is about"


def record(message: str, *arguments: Any, **extra: Any) -> dict[str, Any]:
    made = logging.makeLogRecord({"msg": message, "args": arguments, "levelname": "WARNING", "name": "t", **extra})
    body: dict[str, Any] = json.loads(JsonLinesFormatter("gateway").format(made))
    return body


def test_a_line_break_or_an_escape_of_somebody_else_stays_inside_the_text() -> None:
    told = JsonLinesFormatter("gateway").format(
        logging.makeLogRecord({"msg": "no path %s", "args": ('/x\n{"level":"error"}\x1b[2J',), "levelname": "INFO"})
    )
    assert "\n" not in told and "\x1b" not in told
    assert json.loads(told)["event"] == 'no path /x\n{"level":"error"}\x1b[2J'


def test_secrets_are_taken_out() -> None:
    key = make_key()
    body = record("key %s at %s", key, "postgresql://u:pa55word@db/x", authorization="anything", retries=3)
    assert key not in json.dumps(body) and "pa55word" not in json.dumps(body)
    assert body["event"] == "key [groundplan_key] at postgresql://u:[password]@db/x"
    assert body["authorization"] == "[hidden]" and body["retries"] == 3
    assert redact_secrets("https://example.org/a?b=c:d@e") == "https://example.org/a?b=c:d@e"


def test_a_failure_that_is_tried_again_is_logged_once_in_ten_minutes() -> None:
    """PostgreSQL may be away for hours, and each pool tries again by the second."""

    def is_logged(seconds: float, message: str, name: str = "psycopg.pool", level: int = logging.WARNING) -> bool:
        fields = {"name": name, "levelno": level, "msg": message, "created": 1e9 + seconds}
        return repeated.filter(logging.makeLogRecord(fields))

    repeated = RepeatedWarnings()
    away = "error connecting in 'repeats': connection timeout expired"
    assert [is_logged(second, away) for second in (0, 3, 599, 601, 605)] == [True, False, False, True, False]
    assert is_logged(602, "error connecting in 'repeats': too many clients")
    assert is_logged(603, "closing returned connection: <C [ACTIVE] at 0x7f01>")
    assert not is_logged(604, "closing returned connection: <C [ACTIVE] at 0x7f02>")
    assert all(is_logged(700, "cut off from live policy", "groundplan.gateway.policy.live") for _ in range(2))
    assert all(is_logged(700, "failed", "groundplan.api.periodic", logging.ERROR) for _ in range(2))
    assert [is_logged(700, "not possible now", "groundplan.api.periodic") for _ in range(2)] == [True, False]


def test_a_long_text_is_cut() -> None:
    event = record("begin" + "x" * 100_000 + "end")["event"]
    assert len(event) < MAX_CHARACTERS + 100
    assert event.startswith("beginx") and event.endswith("xend"), "both ends of a traceback matter"


@pytest.mark.parametrize("beyond", range(0, 60, 7))
@pytest.mark.parametrize("cut", [MAX_CHARACTERS // 4, 100_000 - MAX_CHARACTERS * 3 // 4])
def test_a_secret_at_the_cut_is_taken_out_whole(cut: int, beyond: int) -> None:
    key = make_key()
    text = " " * (cut - beyond) + key
    event = record(text + " " * (100_000 - len(text)))["event"]
    assert not any(key[at : at + 8] in event for at in range(len(key) - 8))


def test_an_exception_is_part_of_its_line() -> None:
    try:
        raise ValueError("no\ngood")
    except ValueError:
        body = record("it failed", exc_info=sys.exc_info())
    assert "ValueError: no\ngood" in body["exception"]


def test_logging_and_structlog_of_a_process_write_the_same_shape() -> None:
    program = (
        "import logging\n"
        "from groundplan.core.logger import get_logger\n"
        "from groundplan.core.logs import configure\n"
        "configure('shipper')\n"
        "for library in ('httpx', 'websockets.server'):\n logging.getLogger(library).info('one more call')\n"
        "logging.getLogger('python_multipart.multipart').warning('one more form')\n"
        "logging.getLogger('a.b').warning('one %s', 1)\n"
        "get_logger().info('two', password='x', count=2)\n"
        "try:\n 1 / 0\nexcept ZeroDivisionError:\n get_logger().exception('three')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    one, two, three = (json.loads(text) for text in done.stderr.splitlines())
    assert (one["event"], one["level"], one["logger"], one["process"]) == ("one 1", "warning", "a.b", "shipper")
    assert (two["event"], two["password"], two["count"]) == ("two", "[hidden]", 2)
    assert "ZeroDivisionError" in three["exception"]


def test_the_end_of_a_log_is_told_in_words(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    told = format_line(NOW, "ERROR", "gateway-0", "x", "it failed", {"exception": "Traceback\n  x\nValueError: no"})
    log.write_text(f"plain\n{told}\n[1]\n")
    assert tail(log) == "plain | it failed ValueError: no | [1]"


def test_a_line_that_cannot_be_written_ends_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk."""
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        log = get_logger("t").bind(a=1)
        for say in (log.info, log.warning, log.error, log.exception):
            say("waiting", problem="no space")
        with pytest.raises(OSError, match="space"):
            full.close()
    monkeypatch.setattr(sys, "stderr", plain := io.StringIO())
    get_logger("t").warning("waiting", problem="none")
    assert json.loads(plain.getvalue())["problem"] == "none"


@pytest.mark.parametrize("limit", [30, 31, 39, 40])
def test_a_log_that_is_rotated_keeps_whole_lines(tmp_path: Path, limit: int) -> None:
    log = tmp_path / "x.log"
    lines = [json.dumps({"n": number}) for number in range(10, 20)]  # of ten bytes each, with their ends
    log.write_text("".join(f"{line}\n" for line in lines))
    trim(log, limit)
    assert log.read_text() == "" and tmp_path.joinpath("x.log.1").read_text().splitlines() == lines[-(limit // 10) :]
