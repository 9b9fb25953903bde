"""Addresses of the database per role, for the embedded server and for a DSN."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from groundplan.core.database import ROLES, connect, database_url, embedded_url, external_url
from groundplan.core.errors import Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.core.settings import Settings, clear_libpq_formats, load_settings


def settings(dsn: str | None = None) -> Settings:
    return dataclasses.replace(load_settings({}), database_url=dsn)


def test_before_the_first_start_there_is_no_address(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="database_not_running"):
        database_url(Home(tmp_path), settings(), "control")


def test_the_embedded_server_is_reached_as_the_role(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.postgres.mkdir()
    (home.postgres / "port").write_text("5555\n")
    (home.postgres / "roles.json").write_text(json.dumps({role: f"pw-{role}" for role in ROLES}))
    for role in ROLES:
        found = conninfo_to_dict(database_url(home, settings(), role))
        assert (found["host"], found["port"], found["dbname"]) == ("127.0.0.1", "5555", "groundplan")
        assert (found["user"], found["password"]) == (f"groundplan_{role}", f"pw-{role}")
        # which the environment of whoever starts it may say otherwise, of other servers
        assert (found["sslmode"], found["hostaddr"], found["target_session_attrs"]) == ("disable", "127.0.0.1", "any")
        assert "-c timezone=UTC" in str(found["options"])


def test_what_libpq_asks_every_server_for_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dates as PGDATESTYLE wants them are not read at all, and days as of PGTZ are others than those of UTC."""
    for name in ("PGDATESTYLE", "PGTZ"):
        monkeypatch.setenv(name, "SQL, DMY")
    clear_libpq_formats()
    assert not {"PGDATESTYLE", "PGTZ"} & set(os.environ)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_password_survives_the_address(password: str) -> None:
    assert conninfo_to_dict(embedded_url(5432, "user", password, "db"))["password"] == password


@pytest.mark.parametrize(
    "dsn", ["postgresql://u:p%40@db.internal:6000/acme?sslmode=require", "host=db dbname=acme user=u"]
)
def test_a_dsn_takes_on_the_role_and_keeps_its_parameters(dsn: str) -> None:
    before = conninfo_to_dict(dsn)
    after = conninfo_to_dict(external_url(dsn, "search"))
    *let_go, role = str(after.pop("options")).split("-c ")[1:]
    assert role == "role=acme_search" and "tcp_keepalives_idle=10s " in let_go
    assert (after.pop("application_name"), after.pop("client_encoding")) == ("groundplan_search", "UTF8")
    assert {name: after[name] for name in before} == before
    assert "role=" not in str(conninfo_to_dict(external_url(dsn, "owner"))["options"])


def test_options_of_a_dsn_are_kept() -> None:
    given = "-c work_mem=8MB -c tcp_keepalives_idle=60 -c timezone=Europe/Oslo"
    found = str(conninfo_to_dict(external_url(f"host=h dbname=acme options='{given}'", "control"))["options"])
    assert found.startswith(given) and found.count("tcp_keepalives_idle") == 1
    written = found.removeprefix(given).removesuffix(" -c role=acme_control")
    assert " -c timezone=UTC -c datestyle=ISO " in written, "whatever the server's are: the last one counts"


def test_that_a_server_is_gone_without_a_word_is_noticed_unless_the_dsn_says_otherwise() -> None:
    """Else whoever listens goes on for two hours."""
    found = conninfo_to_dict(external_url("postgresql://h/acme?keepalives_idle=60", "control"))
    assert found["keepalives_idle"] == "60"
    assert (found["keepalives_interval"], found["keepalives_count"], found["tcp_user_timeout"]) == ("5", "3", "20000")


@pytest.mark.parametrize("dsn", ["nonsense", "postgresql://h", "host=h password=secret"])
def test_a_wrong_dsn_is_refused_without_repeating_it(tmp_path: Path, dsn: str) -> None:
    with pytest.raises(Invalid, match="database_url") as refused:
        database_url(Home(tmp_path), settings(dsn), "control")
    assert "secret" not in str(refused.value)


def test_a_dsn_in_a_file_is_read_each_time(tmp_path: Path) -> None:
    """So that a reload is enough where its password changes; a secret of Kubernetes is such a file."""
    path = tmp_path / "dsn"
    for password in ("first", "second"):
        path.write_text(f"postgresql://u:{password}@h/acme\n")
        found = conninfo_to_dict(database_url(Home(tmp_path), settings(f"file:{path}"), "control"))
        assert (found["password"], found["dbname"]) == (password, "acme")
    path.unlink()
    with pytest.raises(Invalid, match="secret_unreadable"):
        database_url(Home(tmp_path), settings(f"file:{path}"), "control")


def test_a_server_that_is_not_there_is_unavailable_in_our_words() -> None:
    with pytest.raises(Unavailable, match="database_unavailable"):
        connect(embedded_url(1, "u", "p", "d"))


@pytest.mark.parametrize(("file", "lacking"), [("[other]\nhost=127.0.0.1\n", "definition"), (None, "service file")])
def test_a_service_that_is_not_found_is_a_mistake_in_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str | None, lacking: str
) -> None:
    """It was said that PostgreSQL may not run, and doctor named its log."""
    path = tmp_path / "services"
    if file is not None:
        path.write_text(file)
    monkeypatch.setenv("PGSERVICEFILE", str(path))
    with pytest.raises(Invalid, match="database_url") as refused:
        connect("postgresql:///acme?service=nope")
    assert lacking in refused.value.message and "PGSERVICEFILE" in str(refused.value.hint)


def test_a_pooler_that_refuses_what_is_asked_for_is_named() -> None:
    """As PgBouncer does, unless it is told to drop it; PostgreSQL was said not to run."""
    fields = b"SFATAL\0C08P01\0Munsupported startup parameter in options: tcp_keepalives_idle\0\0"

    def refuse(listening: socket.socket) -> None:
        taken, _ = listening.accept()
        with taken:
            taken.recv(1024)
            taken.sendall(b"E" + (len(fields) + 4).to_bytes(4) + fields)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        pooler = threading.Thread(target=refuse, args=(listening,))
        pooler.start()
        with pytest.raises(Invalid, match="database_pooled"):
            connect(f"postgresql://u:p@127.0.0.1:{listening.getsockname()[1]}/d?sslmode=disable&gssencmode=disable")
        pooler.join()
