"""Whoever waits for a connection to PostgreSQL gets one while name servers are away, where it was found last."""

from __future__ import annotations

import socket
from typing import Any, NoReturn

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool

from groundplan.api.app import _CheckedConnection
from groundplan.core import last_known_address
from groundplan.core.database import connect
from groundplan.core.errors import Unavailable
from groundplan.testing.database import Database


def test_postgresql_is_where_it_was_found_last(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    found, error = socket.getaddrinfo, [0]

    def look_up(host: Any, *given: Any, **more: Any) -> Any:
        def away() -> NoReturn:
            raise socket.gaierror(error[0], "no answer")

        return away() if error[0] else found("127.0.0.1" if host == "postgres.test" else host, *given, **more)

    own: dict[str, Any] = {**conninfo_to_dict(database.urls["control"]), "host": "postgres.test", "sslmode": "disable"}
    own.pop("hostaddr", None)
    url = make_conninfo("", **own)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(last_known_address, "_known", {})
    error[0] = socket.EAI_AGAIN
    with pytest.raises(Unavailable):
        connect(url)
    error[0] = 0
    with connect(url) as connection:
        assert connection.info.hostaddr == "127.0.0.1"
    for error[0] in (socket.EAI_AGAIN, socket.EAI_FAIL):
        with connect(url) as connection:
            assert (connection.info.host, connection.info.dbname) == ("postgres.test", database.name)
        with ConnectionPool(
            url, connection_class=_CheckedConnection, min_size=1, max_size=1, timeout=5, open=True
        ) as pool:
            with pool.connection() as pooled:
                assert pooled.execute("SELECT 1").fetchone() == (1,)
    error[0] = socket.EAI_NONAME
    with pytest.raises(Unavailable, match="database_unavailable"):
        connect(url)
