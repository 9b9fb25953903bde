"""A small control API client for commands. Finds a running `up` through HOME and sends the operator's token.

It never retries: a command reports the failure and ends. It uses the standard library only, so that commands start
fast.
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
from groundplan.cli.output import parse_problem
from groundplan.core.endpoints import is_from_home, start_ticks
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


def find_running(home: Home) -> dict[str, Any] | None:
    """State file of the running `up` (`pid`, `gateway`, `control`, ...); None if none runs."""
    try:
        value = json.loads((home.run / "up.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("control"), str) or not is_from_home(value, home):
        return None
    pid = value.get("pid")
    started = start_ticks(pid) if isinstance(pid, int) else ""
    # a killed `up` leaves the file behind, and in a container another process often gets its pid
    return value if started and value.get("began", started) == started else None


def require_running(home: Home) -> dict[str, Any]:
    """As `find_running`. Raises `Unavailable` (exit 69) if none runs."""
    state = find_running(home)
    if state is None:
        raise Unavailable(
            f"no running `groundplan up` was found for {home.root}",
            code="not_running",
            hint="Start it with `groundplan up`, or name its HOME with --home.",
        )
    return state


class ControlClient:
    """A client for one address and token. Methods return the decoded JSON of the response or raise its error."""

    def __init__(self, url: str, token: str, timeout: float = 120.0) -> None:
        self.url = _base_url(url)
        self._token = _validated_token(token)
        self._timeout = timeout

    @classmethod
    def connect(cls, home: Path | None, timeout: float = 120.0) -> ControlClient:
        """A client of the `up` of this HOME, or of GROUNDPLAN_URL. Raises `Unavailable` (exit 69) if none runs."""
        settings = settings_for(home)
        paths = Home(settings.home)
        url = settings.url
        if url is None:
            url = str(require_running(paths)["control"])
        return cls(url, settings.token or read_token(paths), timeout)

    def with_timeout(self, seconds: float) -> ControlClient:
        """The same client with another timeout."""
        return ControlClient(self.url, self._token, seconds)

    def get(self, path: str, **query: Any) -> Any:
        parameters = {name: value for name, value in query.items() if value is not None}
        return self.send("GET", f"{path}?{_encode_query(parameters)}" if parameters else path)

    def gateway_url(self) -> str:
        """The gateway's base URL as the control process knows it. Raises `Unavailable` if it knows none."""
        url = self.get("/api/status")["addresses"].get("gateway")
        if url is None:
            raise Unavailable(
                f"{self.url} does not know the address of a gateway", code="gateway_unreachable",
                hint="`groundplan up` tells it where its gateway is: is it running for that HOME?",
            )  # fmt: skip
        return str(url)

    def list_all(self, path: str, name: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All items that `path` lists under `name`, page by page, newest first; `next` of a page is `before` of the
        following request."""
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
        """Send the bytes of a file unchanged."""
        return self.send("POST", f"{path}?{_encode_query(query)}", data)

    def save(self, path: str, file: Path, **query: str) -> int:
        """Write the body of a GET response, such as an archive, to a new file; returns its size in bytes."""
        if file.exists():  # exports are audited, so none is requested that cannot be stored
            raise _unwritable_error(file, "File exists")
        data, is_created = self.send("GET", f"{path}?{_encode_query(query)}", raw=True), False
        try:
            with file.open("xb") as opened:
                is_created = True
                return opened.write(data)
        except OSError as error:
            if is_created:  # an incomplete file would block the next try
                file.unlink(missing_ok=True)
            raise _unwritable_error(file, error.strerror) from error

    def delete(self, path: str) -> Any:
        return self.send("DELETE", path)

    def send(self, method: str, path: str, body: Any = None, *, raw: bool = False) -> Any:
        """Send one request; with `raw` return the body of a successful response as bytes.

        Raises `Unavailable` if nothing answers, else the error in the API's response.
        """
        headers = {"Accept": "application/json"}
        data = None
        if body is not None:
            is_file = isinstance(body, bytes)
            data = body if is_file else json.dumps(body).encode()
            headers["Content-Type"] = "text/csv" if is_file else "application/json"
        with self._request(method, path, headers, data) as response:
            status, payload = response.status, response.read()
        return payload if raw and 200 <= status < 300 else _decode_response(status, payload)

    def events(self, path: str, last_id: str | None = None) -> Iterator[tuple[str, str, str]]:
        """Yield (event, id, data) of a stream of server-sent events until it ends. Raises as `send` does.

        `last_id` is the id of the last event already seen.
        """
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        with self._request("GET", path, headers) as response:
            if response.status != 200:
                _decode_response(response.status, response.read())
                return
            yield from read_events(response)

    @contextmanager
    def _request(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Context manager for the response to one request. Raises `Unavailable` if nothing answers, or if the
        connection breaks while the response is read."""
        parts = urlsplit(self.url)
        connection_class = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = connection_class(parts.hostname or "127.0.0.1", parts.port, timeout=self._timeout)
        all_headers = {"Authorization": f"Bearer {self._token}", **headers}
        try:
            connection.request(
                method, quote(path, safe="/?&=%:+", errors="surrogateescape"), body=body, headers=all_headers
            )
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            slow = isinstance(error, TimeoutError)
            failure = (
                f"gives no answer within {self._timeout:g} s" if slow else "does not answer: " + type(error).__name__
            )
            raise Unavailable(
                f"{self.url} {failure}",
                code="not_running",
                hint="Is `groundplan up` still running? `groundplan doctor` looks for the cause.",
            ) from error
        finally:
            connection.close()


def _encode_query(query: Mapping[str, Any] | Sequence[tuple[str, str]]) -> str:
    """Encode a query; text that is not UTF-8, such as file names, keeps its bytes."""
    return urlencode(query, errors="surrogateescape")


def _unwritable_error(file: Path, cause: str | None) -> Invalid:
    return Invalid(
        f"{file} cannot be written: {cause}", code="file_unwritable",
        hint="Name a file that is not there yet, in a folder that you may write to.",
    )  # fmt: skip


def read_events(lines: Iterable[bytes]) -> Iterator[tuple[str, str, str]]:
    """Yield (event, id, data) of each event with data; comments and other fields are skipped."""
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


def _base_url(url: str) -> str:
    """The base URL without its last slash. Raises `Invalid` (`url_invalid`) if it is not an HTTP URL."""
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


def _validated_token(token: str) -> str:
    """The token, if it is valid in a header. Raises `Invalid` for other text, which is a mistake and never sent."""
    if not token.isascii() or not token.isprintable():
        raise Invalid(
            "the token contains invalid characters", code="token_invalid",
            hint="Copy it again from HOME/operator.token, or check GROUNDPLAN_TOKEN.",
        )  # fmt: skip
    return token


def read_token(home: Home) -> str:
    """The local operator's token. Raises `Denied` if this user may not read it."""
    try:
        return home.operator_token.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Denied(
            f"the operator token {home.operator_token} cannot be read",
            code="operator_token",
            hint="Run as the user who started `groundplan up`, or set GROUNDPLAN_TOKEN.",
        ) from error


def _decode_response(status: int, payload: bytes) -> Any:
    try:
        value = json.loads(payload) if payload else None
    except ValueError:
        value = None
    if 200 <= status < 300:
        return value
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        raise Unavailable(
            f"the control API answered {status}", code="unexpected_answer", hint="See HOME/logs/control.log."
        )
    raise _BY_STATUS.get(status, GroundplanError)(
        str(error.get("message", "")),
        code=str(error.get("code", "error")),
        hint=str(error.get("hint", "")),
        where=error.get("where"),
        problems=tuple(parse_problem(problem) for problem in error.get("problems") or ()),
    )
