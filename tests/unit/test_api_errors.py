"""What the control API says where the machine has no more to give."""

from __future__ import annotations

import errno
import os

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from groundplan.api import errors


def response_to_os_error(number: int) -> tuple[int, str, str, str]:
    """(status, code, message, Retry-After) of a request in which a system call failed with that number."""
    app = FastAPI()
    errors.install(app)

    @app.get("/")
    def room() -> None:
        raise OSError(number, os.strerror(number), "HOME/run/room.zip")

    reply = TestClient(app, raise_server_exceptions=False).get("/")
    told = reply.json()["error"]
    assert told["hint"]
    return reply.status_code, told["code"], told["message"], reply.headers.get("retry-after", "")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE])
def test_a_disk_that_takes_nothing_is_said_with_its_file(number: int) -> None:
    message = f"HOME/run/room.zip cannot be used: {os.strerror(number)}"
    assert response_to_os_error(number) == (503, "file_unusable", message, "5")


def test_what_is_no_fault_of_the_machine_stays_unexpected() -> None:
    assert response_to_os_error(errno.EISDIR) == (500, "internal", "something unexpected happened", "")
