"""Host headers at the control port: which name a request is for decides whether the operator's token is valid."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from groundplan.api.http.security import host_name

NAME = "ai.acme.example"


def read_by_others(value: str) -> str | None:
    """The name as Starlette reads it, on which the rights of a request depend."""
    headers = [(b"host", value.encode("latin-1"))]
    server = ("127.0.0.1", 8601)
    return Request({"type": "http", "scheme": "http", "path": "/", "headers": headers, "server": server}).url.hostname


@pytest.mark.parametrize("value", [NAME, f"{NAME}:443", "AI.acme.example:0", "localhost:65535", "127.0.0.1:80"])
def test_a_name_is_the_same_to_everybody(value: str) -> None:
    assert host_name(value) == read_by_others(value) == value.partition(":")[0].lower()


def test_an_address_in_brackets_is_kept_in_them() -> None:
    assert host_name("[::1]:8601") == "[::1]" and host_name("[::1]") == "[::1]"


@pytest.mark.parametrize(
    "after", [":", ":x", ":65536", ":-1", ":443@x", ":443:1", ":443/x", ": 443", ":\xb2", " ", "\t", "/", "@x", "\n"]
)
def test_a_malformed_header_has_no_name(after: str) -> None:
    """To Starlette it is for this machine, where more is allowed than from elsewhere."""
    assert host_name(NAME + after) == ""
    assert host_name("[::1]" + after) == ""
