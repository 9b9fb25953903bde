"""Clients of the chaos suite: JSON, streams, embeddings, repeated questions, clients that go away.

Each tells what it saw. A broken connection is no error of the answer: who holds it may just have been killed.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from contextlib import suppress
from typing import Any

from tests.acceptance.chaos_books import Seen
from tests.acceptance.chaos_world import TOKENS, World

SENDERS = 6
PATIENCE = 40.0
"""Seconds that a client waits; longer than any deadline."""


class Traffic:
    """Senders in threads, from `start` to `stop`."""

    def __init__(self, world: World, workloads: tuple[str, ...], seed: int) -> None:
        self._world = world
        self._workloads = workloads
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(random.Random(seed * 100 + n),), daemon=True)
            for n in range(SENDERS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin no more calls and wait for those that run."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE * 2)
            assert not thread.is_alive(), "a client waits for ever"

    def _send(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            workload = chance.choice(self._workloads)
            kind = chance.choice(("json", "json", "stream", "stream", "embeddings", "abort"))
            port = chance.choice(self._world.replicas).port
            self._world.seen.append(self._call(port, workload, kind, chance))
            time.sleep(0.02)

    def _call(self, port: int, workload: str, kind: str, chance: random.Random) -> Seen:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        seen: dict[str, Any] = {"status": 0}
        try:
            body, path = body_of(kind, workload, chance)
            headers = {"authorization": f"Bearer {self._world.keys[workload]}", "content-type": "application/json"}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            call = answer.getheader("groundplan-call-id") or ""
            if kind == "abort" and answer.status == 200:
                answer.read(chance.choice((0, 1, 200)))
                seen = {"status": answer.status, "call": call, "aborted": True}
            else:
                data = answer.read()
                seen = {"status": answer.status, "call": call, **error_of(answer.status, kind, data)}
        except (OSError, http.client.HTTPException):
            pass  # cut off in the middle; what it cost is in the ledger
        finally:
            connection.close()
        return Seen(workload=workload, kind=kind, **seen)


def body_of(kind: str, workload: str, chance: random.Random) -> tuple[dict[str, Any], str]:
    """(body, path) of a call; cached workloads get few different questions."""
    text = f"question {chance.randrange(5 if workload == 'cached' else 10**6)}"
    if kind == "embeddings":
        return {"model": "auto", "input": text}, "/v1/embeddings"
    body: dict[str, Any] = {
        "model": "auto",
        "max_tokens": TOKENS,
        "messages": [{"role": "user", "content": text}],
    }
    if kind == "stream" or (kind == "abort" and chance.random() < 0.7):
        body["stream"] = True
    if kind == "stream" and chance.random() < 0.5:
        body["stream_options"] = {"include_usage": True}
    return body, "/v1/chat/completions"


def error_of(status: int, kind: str, data: bytes) -> dict[str, str]:
    """Code and message of an error in the answer or in one of its events; none where all is well."""
    told: Any = None
    if status != 200:
        with suppress(ValueError, KeyError, TypeError):
            told = json.loads(data)["error"]
    elif kind == "stream":
        events = [line[6:] for line in data.decode().splitlines() if line.startswith("data: ")]
        told = next((json.loads(event)["error"] for event in events if event.startswith('{"error"')), None)
        if told is None and events[-1:] != ["[DONE]"]:
            return {"code": "no_end", "text": "the stream ends without [DONE]"}
    return {} if told is None else {"code": str(told["code"]), "text": str(told["message"])}
