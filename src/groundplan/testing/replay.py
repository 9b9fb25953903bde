"""Recorded traffic, replayed through a gateway: each call at its time, with its prompt's and its answer's tokens.

The record is a CSV file (also .gz) with a header: `arrival, prompt tokens, output tokens` by the names in `COLUMNS`,
arrivals in seconds or as dates with times; or JSON lines (`.jsonl`, also .gz) by those names, with a `timestamp` in
milliseconds, as Mooncake's traces are. Prompts are made of as many words, and `max_tokens` is the recorded output,
so that the scripted model, told to answer at length, gives as many. Contents are not replayed: there are none.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from groundplan.core.errors import Invalid

COLUMNS = {
    "arrival": ("arrival", "arrival_s", "timestamp"),
    "prompt tokens": ("prompt_tokens", "contexttokens", "input_tokens", "input_length"),
    "output tokens": ("output_tokens", "generatedtokens", "completion_tokens", "output_length"),
}
"""Accepted names of each column, in lower case."""
CALL_SECONDS = 120.0
_WORDS = "pump valve bearing gasket motor sensor "


@dataclass(frozen=True, slots=True)
class Arrival:
    """One recorded call: seconds after the first, and tokens."""

    at: float
    prompt: int
    output: int


@dataclass
class Outcome:
    """What became of a replay; latencies and lags in seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    prompt: int = 0
    output: int = 0
    seconds: float = 0.0

    def told(self) -> dict[str, Any]:
        """As JSON: how many calls with which status (0: the connection failed), tokens, and times in milliseconds."""
        return {
            "calls": sum(self.statuses.values()),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "prompt_tokens": self.prompt,
            "output_tokens": self.output,
            "seconds": round(self.seconds, 1),
            "p50_ms": quantile(self.latencies, 0.5),
            "p99_ms": quantile(self.latencies, 0.99),
            "send_lag_p99_ms": quantile(self.lags, 0.99),
        }


def read_record(path: Path, most: int | None = None) -> list[Arrival]:
    """The calls of a record in the order of their arrival, the first at 0. Raises `Invalid`."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise _invalid(path, f"it cannot be read: {error}") from error
    rows = _read_jsonl(path, text) if ".jsonl" in path.suffixes else _read_csv(path, text)
    found = list(itertools.islice(rows, most))
    found.sort(key=lambda arrival: arrival.at)
    return [Arrival(each.at - found[0].at, each.prompt, each.output) for each in found]


def _read_csv(path: Path, text: str) -> Iterator[Arrival]:
    """Of CSV."""
    rows = csv.reader(io.StringIO(text))
    header = [name.strip().lower() for name in next(rows, [])]
    places = [_column_index(path, header, what, names) for what, names in COLUMNS.items()]
    for row in rows:
        if not row:
            continue
        try:
            at, prompt, output = (row[place].strip() for place in places)
            yield Arrival(_seconds(at), max(1, int(prompt)), max(1, int(output)))
        except (ValueError, IndexError) as error:
            raise _invalid(path, f"line {rows.line_num}: {error}") from error


def _read_jsonl(path: Path, text: str) -> Iterator[Arrival]:
    """Of JSON lines."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
            names = list(told)
            at, prompt, output = (names[_column_index(path, names, what, known)] for what, known in COLUMNS.items())
            seconds = float(told[at]) / (1000 if at == "timestamp" else 1)
            yield Arrival(seconds, max(1, int(told[prompt])), max(1, int(told[output])))
        except (ValueError, TypeError) as error:
            raise _invalid(path, f"line {number}: {error}") from error


def _column_index(path: Path, header: Sequence[str], what: str, names: Iterable[str]) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise _invalid(path, f"no column tells the {what}; it may be called {', '.join(names)}")


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text[:26]).timestamp()  # some records have more digits than microseconds


def _invalid(path: Path, problem: str) -> Invalid:
    return Invalid(
        f"{path} is no record of traffic: {problem}",
        code="traffic_record",
        hint="Give a CSV file with a header, or JSON lines: arrival, prompt_tokens, output_tokens.",
    )


def quantile(values: Sequence[float], share: float) -> float | None:
    """In milliseconds."""
    ordered = sorted(values)
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else None


def build_request(arrival: Arrival, key: str) -> bytes:
    """A whole request of as many words as the recorded prompt had tokens."""
    words = (_WORDS * (arrival.prompt // 6 + 1)).split()[: arrival.prompt]
    body = {
        "model": "auto",
        "max_tokens": arrival.output,
        "messages": [{"role": "user", "content": " ".join(words)}],
    }
    data = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        f"content-type: application/json\r\nauthorization: Bearer {key}\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


async def replay(port: int, key: str, record: Sequence[Arrival], speed: float = 1.0) -> Outcome:
    """Send every call at its time, `speed` times as fast as recorded, whatever the answers do."""
    outcome, start = Outcome(), time.perf_counter()
    running: set[asyncio.Task[None]] = set()
    for arrival in record:
        due = start + arrival.at / speed
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        outcome.lags.append(max(0.0, time.perf_counter() - due))
        task = asyncio.create_task(_call(port, build_request(arrival, key), outcome))
        running.add(task)
        task.add_done_callback(running.discard)
    if running:
        await asyncio.wait(running)
    outcome.seconds = time.perf_counter() - start
    return outcome


async def _call(port: int, request: bytes, outcome: Outcome) -> None:
    began, writer, answer = time.perf_counter(), None, b""
    try:
        async with asyncio.timeout(CALL_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = await reader.read()
    except (OSError, TimeoutError):
        pass  # counted as 0 below
    finally:
        if writer is not None:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head[9:12]) if head[:5] == b"HTTP/" else 0
    outcome.statuses[status] += 1
    if status == 200:
        outcome.latencies.append(time.perf_counter() - began)
        usage = json.loads(body)["usage"]
        outcome.prompt += usage["prompt_tokens"]
        outcome.output += usage["completion_tokens"]
