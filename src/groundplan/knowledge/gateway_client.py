"""Calls of search and index to deployments, made to the gateway like any other: metered, budgeted, audited, refused.

The gateway's address is what `up` announces; the key is the control process's own for the workload, in a file of HOME
that only this user reads. Blocking, for ingestion and the search service. Makes no key and decides no fallback.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from groundplan.core.errors import Unavailable
from groundplan.core.home import Home, write_atomically

LATE: Final = "service_late"
_PIECE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """A gateway key of search and index, its id, and the workload that it is for."""

    id: str
    workload: str
    secret: str

    def write(self, home: Home) -> None:
        """Keep it for the processes of this HOME."""
        body = {"id": self.id, "workload": self.workload, "secret": self.secret}
        write_atomically(key_file(home, self.workload), json.dumps(body).encode())


def key_file(home: Home, workload: str) -> Path:
    """Where the key for a workload is."""
    return home.keys / f"index-service-{workload}.json"


def read_key(home: Home, workload: str) -> ServiceKey | None:
    """The key that was made last for a workload; None where there is none yet."""
    return _read(key_file(home, workload))


def list_keys(home: Home) -> Iterator[tuple[Path, ServiceKey]]:
    """Every key that is kept, with its file."""
    for file in sorted(home.keys.glob("index-service*.json")):
        if (key := _read(file)) is not None:
            yield file, key


def _read(file: Path) -> ServiceKey | None:
    try:
        body = json.loads(file.read_bytes())
        return ServiceKey(str(body["id"]), str(body["workload"]), str(body["secret"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def post_to_gateway(home: Home, workload: str, path: str, body: Any, seconds: float) -> bytes:
    """What the gateway answers to a POST of JSON for a workload, within so many seconds in all.

    Raises `Unavailable`, whose message is the reason alone; with code `service_late` where the time was over.
    """
    key, gateway = read_key(home, workload), _gateway(home)
    if key is None:
        raise _unavailable(f"search has no key for workload {workload} yet")
    if gateway is None:
        raise _unavailable("no gateway runs")
    headers = {"Authorization": f"Bearer {key.secret}", "Content-Type": "application/json"}
    parts = urlsplit(gateway)
    deadline = time.monotonic() + seconds
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=seconds)
    try:
        connection.request("POST", f"{parts.path}{path}", msgspec.json.encode(body), headers)
        _limit_timeout(connection, deadline)
        answer = connection.getresponse()
        data = bytearray()
        while piece := answer.read1(_PIECE):
            data += piece
            if not answer.isclosed():
                _limit_timeout(connection, deadline)
    except TimeoutError as error:
        raise Unavailable(
            f"no answer came within {seconds:g} s", code=LATE, hint="Look at the calls of its workload."
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _unavailable(f"the gateway does not answer ({error.__class__.__name__})") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise _unavailable(_error_of(answer.status, bytes(data)))
    return bytes(data)


def _limit_timeout(connection: http.client.HTTPConnection, deadline: float) -> None:
    """The next wait ends at the deadline. Raises `TimeoutError` where it is over."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if connection.sock is not None:
        connection.sock.settimeout(left)


def _unavailable(reason: str) -> Unavailable:
    return Unavailable(reason, code="service_call", hint="Look at the calls of its workload.", retry_after=5.0)


def _gateway(home: Home) -> str | None:
    try:
        return str(json.loads((home.run / "up.json").read_bytes())["gateway"]).rstrip("/")
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _error_of(status: int, data: bytes) -> str:
    try:
        error: Any = json.loads(data)["error"]
        message = error["message"].removesuffix(f". {error.get('hint')}")  # what to do is for callers
        return f"{message} ({error.get('code') or status})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"the gateway answered {status}"
