"""The scripted model's message batches, as Anthropic has them: what is ordered bears no name of the caller's.

It can fail at each step on command (see `Script`), and can take an order without ever saying so. Everything is in its
memory. Each call that it makes is counted.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import msgspec

from groundplan.gateway.http.server import Request, Response
from groundplan.testing.scripted_batches import Make, Pace
from groundplan.testing.scripted_messages import error

PATH = b"/v1/messages/batches"
_encode = msgspec.json.Encoder().encode


@dataclass
class MessageBatch:
    """One batch and the requests that it was ordered with."""

    id: str
    requests: list[dict[str, Any]]
    headers: dict[bytes, bytes]
    created_at: datetime
    status: str = "in_progress"
    results: list[dict[str, Any]] = field(default_factory=list)
    cancelled_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def completed(self) -> int:
        return sum(1 for each in self.results if each["result"]["type"] == "succeeded")

    def told(self) -> dict[str, Any]:
        ended = self.status == "ended"
        kinds = [each["result"]["type"] for each in self.results] if ended else []
        counts = {kind: kinds.count(kind) for kind in ("succeeded", "errored", "canceled", "expired")}
        return {
            "id": self.id, "type": "message_batch", "processing_status": self.status,
            "request_counts": {"processing": 0 if ended else len(self.requests), **counts},
            "created_at": _time(self.created_at), "expires_at": _time(self.created_at + timedelta(days=1)),
            "ended_at": _time(self.ended_at), "archived_at": None, "cancel_initiated_at": _time(self.cancelled_at),
            "results_url": f"https://elsewhere.example/{self.id}" if ended else None,
        }  # fmt: skip


class ScriptedMessageBatches:
    """Those of one scripted model."""

    def __init__(self, make: Make, pace: Pace) -> None:
        self._make = make
        self._pace = pace
        self.batches: dict[str, MessageBatch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0

    def serves(self, target: bytes) -> bool:
        return target == PATH or target.startswith(PATH + b"/")

    async def handle(self, target: bytes, request: Request, response: Response) -> None:
        """Answer one request."""
        parts = target.decode().split("/")[4:]
        if not parts and request.method == b"POST":
            self._create(request, response)
            return
        if not parts:
            response.send(200, self._page(request))
            return
        batch = self.batches.get(parts[0])
        if batch is None:
            response.send(404, error("there is no such batch", 404))
        elif parts[1:] == ["cancel"]:
            if batch.status == "in_progress":
                batch.status, batch.cancelled_at = "canceling", datetime.now(UTC)
            response.send(200, _encode(batch.told()))
        elif parts[1:] == ["results"]:
            body = b"".join(_encode(each) + b"\n" for each in batch.results)
            response.send(200, body, content_type=b"content-type: application/x-jsonl\r\n")
        elif request.method == b"DELETE":
            del self.batches[batch.id]
            response.send(200, _encode({"id": batch.id, "type": "message_batch_deleted"}))
        else:
            response.send(200, _encode(batch.told()))

    def _page(self, request: Request) -> bytes:
        query = {name: values[-1] for name, values in parse_qs(request.target.partition(b"?")[2].decode()).items()}
        found = [batch.told() for batch in reversed(self.batches.values())]
        names = [each["id"] for each in found]
        if query.get("after_id") in names:
            found = found[names.index(query["after_id"]) + 1 :]
        limit = int(query.get("limit", "20"))
        first, last = (found[0]["id"], found[:limit][-1]["id"]) if found else (None, None)
        page = {"data": found[:limit], "has_more": len(found) > limit, "first_id": first, "last_id": last}
        return _encode(page)

    def _create(self, request: Request, response: Response) -> None:
        try:
            requests = msgspec.json.decode(request.body, type=dict[str, list[dict[str, Any]]])["requests"]
            names = [each["custom_id"] for each in requests]
        except (msgspec.DecodeError, KeyError) as wrong:
            response.send(400, error(str(wrong), 400))
            return
        if not requests or len(set(names)) < len(names) or any(not 1 <= len(name) <= 64 for name in names):
            response.send(400, error("the batch cannot be made of this", 400))
            return
        response.send(200, _encode(self.order(requests, request.headers).told()))

    def order(self, requests: list[dict[str, Any]], headers: dict[bytes, bytes] | None = None) -> MessageBatch:
        """A batch that is made from now on."""
        self._number += 1
        batch = MessageBatch(f"msgbatch_{self._number:06d}", requests, headers or {}, datetime.now(UTC))
        self.batches[batch.id] = batch
        task = asyncio.get_running_loop().create_task(self._run(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return batch

    async def _run(self, batch: MessageBatch) -> None:
        """Make its calls in order; each that is not made says why."""
        for number, request in enumerate(batch.requests):
            seconds, most, how = self._pace()
            if seconds:
                await asyncio.sleep(seconds)
            while most is not None and number >= most and how == "stall" and batch.status == "in_progress":
                await asyncio.sleep(0.02)
                _, most, how = self._pace()
            over = most is not None and number >= most
            if over and how == "lose":
                continue
            if batch.status == "canceling":
                result: dict[str, Any] = {"type": "canceled"}
            elif over and how == "expire":
                result = {"type": "expired"}
            else:
                result = await self._call(request["params"])
            batch.results.append({"custom_id": request["custom_id"], "result": result})
        batch.status, batch.ended_at = "ended", datetime.now(UTC)

    async def _call(self, params: dict[str, Any]) -> dict[str, Any]:
        status, body = await self._make("/v1/messages", _encode(params))
        if status == 200:
            return {"type": "succeeded", "message": msgspec.Raw(body)}
        return {"type": "errored", "error": msgspec.Raw(body)}


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
