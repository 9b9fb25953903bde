"""A small client of the control API for commands. Finds a running `up` through HOME and carries the operator's token.

It retries nothing: a command says what happened and ends. Standard library only, so that commands start fast.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from groundplan.cli.options import settings_for
from groundplan.cli.output import problem_from
from groundplan.core.endpoints import began, is_of
from groundplan.core.errors import (
    Conflict,
    Denied,
    Exhausted,
    GroundplanError,
    Invalid,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from groundplan.core.home import Home

_BY_STATUS: dict[int, type[GroundplanError]] = {
    400: Invalid, 401: Unauthenticated, 403: Denied, 404: NotFound, 409: Conflict, 413: TooLarge, 422: Invalid,
    429: Exhausted, 503: Unavailable,
}  # fmt: skip


def running(home: Home) -> dict[str, Any] | None:
    """What `up` wrote about itself (`pid`, `gateway`, `control`), or None where nothing runs."""
    try:
        value = json.loads((home.run / "up.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("control"), str) or not is_of(value, home):
        return None
    pid = value.get("pid")
    now = began(pid) if isinstance(pid, int) else ""
    # one that was killed leaves the file, and in a container another process may well get its number
    return value if now and value.get("began", now) == now else None


def found_running(home: Home) -> dict[str, Any]:
    """As `running`. Raises `Unavailable` (exit 69)."""
    state = running(home)
    if state is None:
        raise Unavailable(
            f"no running `groundplan up` was found for {home.root}",
            code="not_running",
            hint="Start it with `groundplan up`, or name its HOME with --home.",
        )
    return state


class ControlClient:
    """One address and token. Every method returns the decoded JSON answer or raises the error that the API told."""

    def __init__(self, url: str, token: str, timeout: float = 120.0) -> None:
        self.url = _address(url)
        self._token = _checked(token)
        self._timeout = timeout

    @classmethod
    def connect(cls, home: Path | None, timeout: float = 120.0) -> ControlClient:
        """The `up` of this HOME, or of GROUNDPLAN_URL. Raises `Unavailable` (exit 69) where none runs."""
        settings = settings_for(home)
        place = Home(settings.home)
        url = settings.url
        if url is None:
            url = str(found_running(place)["control"])
        return cls(url, settings.token or read_token(place), timeout)

    def within(self, seconds: float) -> ControlClient:
        """The same client with another patience."""
        return ControlClient(self.url, self._token, seconds)

    def get(self, path: str, **query: Any) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        return self.send("GET", f"{path}?{_encoded(given)}" if given else path)

    def gateway(self) -> str:
        """The gateway's base URL, as `up` told it to the control process. Raises `Unavailable` where none did."""
        url = self.get("/api/status")["addresses"].get("gateway")
        if url is None:
            raise Unavailable(
                f"{self.url} knows of no gateway", code="gateway_unreachable",
                hint="`groundplan up` tells it where its gateway is: is it running for that HOME?",
            )  # fmt: skip
        return str(url)

    def every(self, path: str, name: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All that `path` lists under `name`, page by page: each begins `before` what the one before it ended with."""
        before: str | None = None
        while True:
            page = self.get(path, before=before, **query)
            yield from page[name]
            before = page.get("next")
            if before is None:
                return

    def post(self, path: str, body: Any = None) -> Any:
        return self.send("POST", path, {} if body is None else body)

    def post_file(self, path: str, data: bytes, query: Sequence[tuple[str, str]]) -> Any:
        """Send a file as it is."""
        return self.send("POST", f"{path}?{_encoded(query)}", data)

    def save(self, path: str, file: Path, **query: str) -> int:
        """Write what a GET answers, such as an archive, to a file that is not there yet; its size in bytes."""
        if file.exists():  # what leaves is in the audit log, so nothing is asked for that cannot be kept
            raise _unwritable(file, "File exists")
        data, made = self.send("GET", f"{path}?{_encoded(query)}", raw=True), False
        try:
            with file.open("xb") as opened:
                made = True
                return opened.write(data)
        except OSError as error:
            if made:  # else it would be in the way of whoever asks again
                file.unlink(missing_ok=True)
            raise _unwritable(file, error.strerror) from error

    def delete(self, path: str) -> Any:
        return self.send("DELETE", path)

    def send(self, method: str, path: str, body: Any = None, *, raw: bool = False) -> Any:
        """One request; with `raw` a good answer is given as its bytes.

        Raises `Unavailable` where nothing answers, else the error told by the API.
        """
        headers = {"Accept": "application/json"}
        data = None
        if body is not None:
            is_file = isinstance(body, bytes)
            data = body if is_file else json.dumps(body).encode()
            headers["Content-Type"] = "text/csv" if is_file else "application/json"
        with self._answer_to(method, path, headers, data) as response:
            status, payload = response.status, response.read()
        return payload if raw and 200 <= status < 300 else _answer(status, payload)

    def events(self, path: str, last: str | None = None) -> Iterator[tuple[str, str, str]]:
        """(event, id, data) of a stream of server-sent events, until it ends. Raises as `send` does.

        `last` is the id after which to go on.
        """
        headers = {"Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = last
        with self._answer_to("GET", path, headers) as response:
            if response.status != 200:
                _answer(response.status, response.read())
                return
            yield from read_events(response)

    @contextmanager
    def _answer_to(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to one request, to be read within. Raises `Unavailable` where nothing answers, or no longer."""
        parts = urlsplit(self.url)
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = make(parts.hostname or "127.0.0.1", parts.port, timeout=self._timeout)
        sent = {"Authorization": f"Bearer {self._token}", **headers}
        try:
            connection.request(method, quote(path, safe="/?&=%:+", errors="surrogateescape"), body=body, headers=sent)
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            slow = isinstance(error, TimeoutError)
            told = f"gives no answer within {self._timeout:g} s" if slow else "does not answer: " + type(error).__name__
            raise Unavailable(
                f"{self.url} {told}",
                code="not_running",
                hint="Is `groundplan up` still running? `groundplan doctor` looks for the cause.",
            ) from error
        finally:
            connection.close()


def _encoded(query: Mapping[str, Any] | Sequence[tuple[str, str]]) -> str:
    """Words that are no UTF-8, such as names of files, as they are."""
    return urlencode(query, errors="surrogateescape")


def _unwritable(file: Path, why: str | None) -> Invalid:
    return Invalid(
        f"{file} cannot be written: {why}", code="file_unwritable",
        hint="Name a file that is not there yet, in a folder that you may write to.",
    )  # fmt: skip


def read_events(lines: Iterable[bytes]) -> Iterator[tuple[str, str, str]]:
    """(event, id, data) of each event with data; comments and other fields are passed over."""
    event, id_ = "message", ""
    data: list[str] = []
    for raw in lines:
        name, _, value = raw.decode("utf-8", "replace").rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if not name and not value:
            if data:
                yield event, id_, "\n".join(data)
            event, data = "message", []
        elif name == "event":
            event = value
        elif name == "id":
            id_ = value
        elif name == "data":
            data.append(value)


def _address(url: str) -> str:
    """The base URL, if it can be one. Raises `Invalid`."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise Invalid(
            "the address of the control API cannot be used", code="url_invalid",
            hint="Write it in GROUNDPLAN_URL as http://HOST:PORT or https://HOST:PORT.",
        )  # fmt: skip
    return url.rstrip("/")


def _checked(token: str) -> str:
    """The token, if it may stand in a header: another text is a mistake, and never sent. Raises `Invalid`."""
    if not token.isascii() or not token.isprintable():
        raise Invalid(
            "the token holds characters that no token has", code="token_invalid",
            hint="Copy it again from HOME/operator.token, or look at GROUNDPLAN_TOKEN.",
        )  # fmt: skip
    return token


def read_token(home: Home) -> str:
    """The local operator's token. Raises `Denied` where this user may not read it."""
    try:
        return home.operator_token.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Denied(
            f"the operator token {home.operator_token} cannot be read",
            code="operator_token",
            hint="Run as the user who started `groundplan up`, or set GROUNDPLAN_TOKEN.",
        ) from error


def _answer(status: int, payload: bytes) -> Any:
    try:
        value = json.loads(payload) if payload else None
    except ValueError:
        value = None
    if 200 <= status < 300:
        return value
    told = value.get("error") if isinstance(value, dict) else None
    if not isinstance(told, dict):
        raise Unavailable(
            f"the control API answered {status}", code="unexpected_answer", hint="See HOME/logs/control.log."
        )
    raise _BY_STATUS.get(status, GroundplanError)(
        str(told.get("message", "")),
        code=str(told.get("code", "error")),
        hint=str(told.get("hint", "")),
        where=told.get("where"),
        problems=tuple(problem_from(problem) for problem in told.get("problems") or ()),
    )
