"""The scripted model's batch API, as OpenAI has it: files, and batches whose lines it makes one after the other.

It can fail at each step on command (see `Script`), and can take an order without ever saying so. Everything is in its
memory. Each line that it makes is counted like a call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import msgspec

from groundplan.gateway.http import multipart
from groundplan.gateway.http.server import Request, Response

FILES, BATCHES = b"/v1/files", b"/v1/batches"
ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings", "/v1/moderations")
FINAL_STATES = ("completed", "failed", "expired", "cancelled")
_encode = msgspec.json.Encoder().encode
Make = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]
"""The (status, body) of one call of an endpoint."""
Pace = Callable[[], tuple[float, int | None, str]]
"""(seconds that a line takes, lines after which it does no more, how it ends then: `stall`, `expire`, `lose`)"""


@dataclass
class _File:
    id: str
    filename: str
    purpose: str
    data: bytes
    created_at: int

    def told(self) -> dict[str, Any]:
        return {
            "id": self.id, "object": "file", "bytes": len(self.data), "created_at": self.created_at,
            "filename": self.filename, "purpose": self.purpose, "status": "processed",
        }  # fmt: skip


@dataclass
class _Batch:
    id: str
    asked: dict[str, Any]
    created_at: int
    status: str = "validating"
    errors: list[dict[str, Any]] = field(default_factory=list)
    output: str | None = None
    failures: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    at: dict[str, int] = field(default_factory=dict)
    """When it took on each state."""

    def told(self) -> dict[str, Any]:
        stamps = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        return {
            "id": self.id, "object": "batch", "endpoint": self.asked["endpoint"],
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.asked["input_file_id"], "completion_window": self.asked["completion_window"],
            "status": self.status, "output_file_id": self.output, "error_file_id": self.failures,
            "created_at": self.created_at, "expires_at": self.created_at + 86_400,
            **{f"{name}_at": self.at.get(name) for name in stamps},
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "metadata": self.asked.get("metadata"),
        }  # fmt: skip


class ScriptedBatches:
    """Files and batches of one scripted model."""

    def __init__(self, make: Make, pace: Pace) -> None:
        self._make = make
        self._pace = pace
        self.files: dict[str, _File] = {}
        self.batches: dict[str, _Batch] = {}
        self._keys: dict[str, str] = {}
        """Batches by Idempotency-Key."""
        self.heeds_keys = False
        """Whether an order with an Idempotency-Key that was used before is the same order."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0

    def serves(self, target: bytes) -> bool:
        return any(target == path or target.startswith(path + b"/") for path in (FILES, BATCHES))

    async def handle(self, target: bytes, request: Request, response: Response) -> None:
        """Answer one request."""
        parts = target.decode().split("/")[3:]
        query = {name: values[-1] for name, values in parse_qs(request.target.partition(b"?")[2].decode()).items()}
        if target.startswith(FILES):
            await self._file(parts, request, response, query)
        else:
            self._batch(parts, request, response, query)

    def _name(self, prefix: str) -> str:
        self._number += 1
        return f"{prefix}{self._number:06d}"

    # files -----------------------------------------------------------------------------------------------------------

    async def _file(self, parts: list[str], request: Request, response: Response, query: dict[str, str]) -> None:
        if not parts and request.method == b"POST":
            await self._upload(request, response)
            return
        if not parts:
            found = [f.told() for f in self.files.values() if query.get("purpose", f.purpose) == f.purpose]
            response.send(200, _page(found[::-1], query))
            return
        file = self.files.get(parts[0])
        if file is None:
            response.send(404, _error("No such File object", "not_found"))
        elif request.method == b"DELETE":
            del self.files[file.id]
            response.send(200, _encode({"id": file.id, "object": "file", "deleted": True}))
        elif parts[1:] == ["content"]:
            response.send(200, file.data, content_type=b"content-type: application/octet-stream\r\n")
        else:
            response.send(200, _encode(file.told()))

    async def _upload(self, request: Request, response: Response) -> None:
        if request.stream is None:
            response.send(400, _error("a form is needed", "invalid"))
            return
        fields: dict[str, bytes] = {}
        filename, part = "", None
        async for event in multipart.form_events(request.stream, request.headers.get(b"content-type")):
            if isinstance(event, multipart.Part):
                part = event
                filename = event.filename or filename
            elif isinstance(event, multipart.Data) and part is not None:
                fields[part.name] = fields.get(part.name, b"") + event.data
        if "file" not in fields or fields.get("purpose") != b"batch":
            response.send(400, _error("file and purpose=batch are needed", "invalid"))
            return
        file = self._store_file(filename, "batch", fields["file"])
        response.send(200, _encode(file.told()))

    def _store_file(self, filename: str, purpose: str, data: bytes) -> _File:
        file = _File(self._name("file-"), filename, purpose, data, int(time.time()))
        self.files[file.id] = file
        return file

    # batches ---------------------------------------------------------------------------------------------------------

    def _batch(self, parts: list[str], request: Request, response: Response, query: dict[str, str]) -> None:
        if not parts and request.method == b"POST":
            self._create(request, response)
            return
        if not parts:
            response.send(200, _page([batch.told() for batch in reversed(self.batches.values())], query))
            return
        batch = self.batches.get(parts[0])
        if batch is None:
            response.send(404, _error("No such batch", "not_found"))
            return
        if parts[1:] == ["cancel"]:
            if batch.status in FINAL_STATES:
                response.send(409, _error(f"the batch is {batch.status}", "conflict"))
                return
            self._set_status(batch, "cancelling")
        response.send(200, _encode(batch.told()))

    def _create(self, request: Request, response: Response) -> None:
        try:
            asked: dict[str, Any] = msgspec.json.decode(request.body, type=dict[str, Any])
        except msgspec.DecodeError as error:
            response.send(400, _error(str(error), "invalid"))
            return
        key = request.headers.get(b"idempotency-key", b"").decode()
        if self.heeds_keys and key in self._keys:
            response.send(200, _encode(self.batches[self._keys[key]].told()))
            return
        wrong = [name for name in ("input_file_id", "endpoint", "completion_window") if name not in asked]
        file = self.files.get(asked.get("input_file_id", ""))
        if wrong or file is None or asked["endpoint"] not in ENDPOINTS or asked["completion_window"] != "24h":
            response.send(400, _error("the batch cannot be made of this", "invalid"))
            return
        batch = _Batch(self._name("batch_"), asked, int(time.time()))
        self.batches[batch.id] = batch
        self._keys[key] = batch.id
        task = asyncio.get_running_loop().create_task(self._run(batch, file.data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        response.send(200, _encode(batch.told()))

    @staticmethod
    def _set_status(batch: _Batch, status: str) -> None:
        batch.status = status
        batch.at[status] = int(time.time())

    async def _run(self, batch: _Batch, data: bytes) -> None:
        """Make its lines in order; what is not made says why."""
        lines = [msgspec.json.decode(line, type=dict[str, Any]) for line in data.splitlines() if line.strip()]
        batch.total = len(lines)
        bad = [n for n, line in enumerate(lines, 1) if line.get("url") != batch.asked["endpoint"]]
        if bad or not lines or len({line["body"].get("model") for line in lines}) > 1:
            batch.errors = [{"code": "invalid", "message": "the input is wrong", "line": n, "param": None} for n in bad]
            batch.errors = batch.errors or [{"code": "invalid", "message": "one model, one line at least"}]
            self._set_status(batch, "failed")
            return
        if batch.status == "validating":
            self._set_status(batch, "in_progress")
        output: list[bytes] = []
        failures: list[bytes] = []
        ended = "completed"
        for number, line in enumerate(lines):
            seconds, most, how = self._pace()
            if seconds:
                await asyncio.sleep(seconds)
            while most is not None and number >= most and how == "stall" and batch.status == "in_progress":
                await asyncio.sleep(0.02)
                _, most, how = self._pace()
            if batch.status == "cancelling" or (most is not None and number >= most and how == "expire"):
                ended = "cancelled" if batch.status == "cancelling" else "expired"
                failures += [_error_line(left, f"batch_{ended}") for left in lines[number:]]
                break
            if most is not None and number >= most and how == "lose":
                continue
            await self._line(batch, line, (output, failures))
        batch.output = self._store_results(batch, "output", output)
        batch.failures = self._store_results(batch, "error", failures)
        self._set_status(batch, ended)

    async def _line(self, batch: _Batch, line: dict[str, Any], files: tuple[list[bytes], list[bytes]]) -> None:
        status, body = await self._make(batch.asked["endpoint"], _encode(line["body"]))
        good = status == 200
        batch.completed, batch.failed = batch.completed + good, batch.failed + (not good)
        answer = {"status_code": status, "request_id": self._name("req_"), "body": msgspec.Raw(body)}
        told = {"id": self._name("batch_req_"), "custom_id": line["custom_id"], "response": answer, "error": None}
        files[not good].append(_encode(told))

    def _store_results(self, batch: _Batch, kind: str, lines: list[bytes]) -> str | None:
        if not lines:
            return None
        return self._store_file(f"{batch.id}_{kind}.jsonl", "batch_output", b"".join(line + b"\n" for line in lines)).id


def _error_line(line: dict[str, Any], code: str) -> bytes:
    error = {"code": code, "message": "This request was not made."}
    return _encode({"id": f"batch_req_{code}", "custom_id": line["custom_id"], "response": None, "error": error})


def _page(found: list[dict[str, Any]], query: dict[str, str]) -> bytes:
    if "after" in query:
        names = [each["id"] for each in found]
        found = found[names.index(query["after"]) + 1 :] if query["after"] in names else []
    limit = int(query.get("limit", "20"))
    first, last = (found[0]["id"], found[:limit][-1]["id"]) if found else (None, None)
    page = {"object": "list", "data": found[:limit], "first_id": first, "last_id": last}
    return _encode({**page, "has_more": len(found) > limit})


def _error(message: str, code: str) -> bytes:
    return _encode({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}})
