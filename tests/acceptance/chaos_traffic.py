"""Clients of the chaos suite: JSON, streams, embeddings, repeated questions, clients that disconnect, and a batch.

Each records a `ClientResult` for each call: what it got, from which replica, and when. `chaos_books` decides whether
that is right; a connection, for instance, may break only where a gateway was killed.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from openai import APIError, OpenAI

from tests.acceptance.chaos_books import ClientResult
from tests.acceptance.chaos_workspace import COUNTED, GROUNDED, OWN_LIMIT, TOKENS
from tests.acceptance.chaos_world import ChaosInstallation

SENDERS = 6
PATIENCE = 40.0
"""Seconds that a client waits; longer than any deadline."""
REFUSED_IN_STREAM = {
    "what it held of the limit": "limit_unreachable",
    "cannot get more now": "budget_unreachable",
    "the limit ": "rate_limit_exceeded",
    "has no room for this call": "budget_exhausted",
    "cut off from live policy": "policy_lease_expired",
}
"""Part of the message of a stream's error, where a budget, a limit or the policy lease kept the next deployment from
being asked -> the code of that refusal. The first that is found counts."""


class Traffic:
    """Senders in threads, from `start` to `stop`."""

    def __init__(self, installation: ChaosInstallation, workloads: tuple[str, ...], seed: int) -> None:
        self._installation = installation
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
        """Start no more calls, and wait for those in flight."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE * 2)
            assert not thread.is_alive(), "a client waits for ever"

    def _send(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            workload = chance.choice(self._workloads)
            kind = chance.choice(("json", "json", "stream", "stream", "embeddings", "abort"))
            replica = chance.choice(("first", "second"))
            begun = time.monotonic()
            key = workload + OWN_LIMIT if workload in COUNTED and chance.random() < 0.5 else workload
            result = self._call(self._installation.replica(replica).port, (workload, key), kind, chance)
            self._installation.client_results.append(
                replace(result, replica=replica, begun=begun, ended=time.monotonic())
            )
            time.sleep(0.02)

    def _call(self, port: int, workload_and_key: tuple[str, str], kind: str, chance: random.Random) -> ClientResult:
        """Make one call. `workload_and_key`: the workload, and the name of the key to use."""
        workload, key = workload_and_key
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        outcome: dict[str, Any] = {"status": 0}
        try:
            body, path = request_body(kind, workload, chance)
            headers = {"authorization": f"Bearer {self._installation.keys[key]}", "content-type": "application/json"}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            call = answer.getheader("groundplan-call-id") or ""
            if kind == "abort" and answer.status == 200:
                answer.read(chance.choice((0, 1, 200)))
                outcome = {"status": answer.status, "call": call, "aborted": True}
            else:
                data = answer.read()
                outcome = {"status": answer.status, "call": call, **parse_error(answer.status, kind, data)}
        except (OSError, http.client.HTTPException):
            pass  # the connection broke; what the call cost is in the ledger
        finally:
            connection.close()
        return ClientResult(workload=workload, kind=kind, **outcome)


def request_body(kind: str, workload: str, chance: random.Random) -> tuple[dict[str, Any], str]:
    """(body, path) of a call; there are only five questions for the cached workload."""
    text = f"question {chance.randrange(5 if workload == 'cached' else 10**6)}"
    if workload == GROUNDED:
        text = f"How many days of paid leave do employees have? {text}"
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


def parse_error(status: int, kind: str, data: bytes) -> dict[str, str]:
    """The `code` and `text` of an error in the answer or in one of its events; empty if there is none."""
    error: Any = None
    if status != 200:
        with suppress(ValueError, KeyError, TypeError):
            error = json.loads(data)["error"]
    elif kind == "stream":
        events = [line[6:] for line in data.decode().splitlines() if line.startswith("data: ")]
        error = next((json.loads(event)["error"] for event in events if event.startswith('{"error"')), None)
        if error is None and events[-1:] != ["[DONE]"]:
            return {"code": "no_end", "text": "the stream ends without [DONE]"}
    if error is None:
        return {}
    code, text = str(error["code"]), str(error["message"])
    refusals = (REFUSED_IN_STREAM[words] for words in REFUSED_IN_STREAM if code == "stream_broken" and words in text)
    return {"code": next(refusals, code), "text": text}


class Batch:
    """A batch of calls that runs during a round, while its replica may be killed any number of times."""

    LINES = 8
    AT_ONCE = 4
    """Lines that a worker calls concurrently."""
    INTERRUPTED = "batch_line_interrupted"
    """The only error that a line may end with: its worker was killed after the line had been sent."""

    def __init__(self, installation: ChaosInstallation, workload: str) -> None:
        self._installation, self._started = installation, time.monotonic()
        url = f"http://127.0.0.1:{installation.replicas[0].port}/v1"
        self._client = OpenAI(base_url=url, api_key=installation.keys[workload], max_retries=4, timeout=10)
        body = request_body("json", workload, random.Random(1))[0]
        lines = [
            {"custom_id": f"c{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            for n in range(self.LINES)
        ]
        data = "\n".join(json.dumps(line) for line in lines).encode()
        file = self._client.files.create(file=("calls.jsonl", data), purpose="batch")
        batch = self._client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        self._id = batch.id

    def faults(self, seconds: float) -> list[str]:
        """Wait until the batch has ended, at most `seconds`, and return what is wrong with its results."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(APIError):
                if self._client.batches.retrieve(self._id).status == "completed":
                    return self._result_faults()
            time.sleep(0.3)
        return [f"the batch {self._id} does not end"]

    def _result_faults(self) -> list[str]:
        batch = self._client.batches.retrieve(self._id)
        results: list[dict[str, Any]] = []
        for id in (batch.output_file_id, batch.error_file_id):
            if id is not None:
                results += [json.loads(text) for text in self._client.files.content(id).text.splitlines()]
        self._client.close()
        names = sorted(result["custom_id"] for result in results)
        found = [] if names == sorted(f"c{n}" for n in range(self.LINES)) else [f"a batch has results of {names}"]
        interrupted = 0
        for result in results:
            if result["error"] is not None or result["response"]["status_code"] != 200:
                code = (result["error"] or result["response"]["body"]["error"])["code"]
                interrupted += code == self.INTERRUPTED
                if code != self.INTERRUPTED:
                    found.append(f"line {result['custom_id']} of a batch ended with {code}")
        if interrupted > (most := self._killed_workers() * self.AT_ONCE):
            found.append(f"{interrupted} lines of a batch were interrupted, where at most {most} were cut off")
        return found

    def _killed_workers(self) -> int:
        """Number of workers of its replica that were killed since the batch was created."""
        workers = {"worker": 1, "up": self._installation.replicas[0].workers}
        kills = [
            h
            for h in self._installation.disruptions
            if h.part == "first" and h.way == "kill" and h.begin >= self._started
        ]
        return sum(workers.get(hurt.what, 0) for hurt in kills)
