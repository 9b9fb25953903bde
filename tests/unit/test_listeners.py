"""Where a gateway may listen, and with which certificate."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.contract.ways import Authority

from groundplan.api import health
from groundplan.api.context import Services
from groundplan.cli.doctor import _check_certificate
from groundplan.cli.listeners import open_listeners, tls_files, with_tls
from groundplan.core.clock import SystemClock
from groundplan.core.errors import Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.gateway.http.tls import ServerFiles
from groundplan.runtime.supervisor import Supervisor

PLAIN = load_settings({})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.acme.example", "169.254.169.254"])
def test_an_address_that_others_can_reach_is_not_served_in_the_clear(host: str) -> None:
    with pytest.raises(Invalid) as caught:
        open_listeners(with_tls(PLAIN, host, None, None, None), 0, 0)
    assert caught.value.code == "tls_required" and "--tls-cert" in caught.value.hint


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_this_machine_needs_no_certificate(host: str) -> None:
    assert tls_files(with_tls(PLAIN, host, None, None, None)) is None


def test_with_a_certificate_there_is_one_more_socket_for_this_machine(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).issue("gateway", "127.0.0.1")
    listeners = open_listeners(with_tls(PLAIN, "0.0.0.0", cert, key, None), 0, 0)
    try:
        port = listeners.public.getsockname()[1]
        assert listeners.tls_paths == {"cert": str(cert), "key": str(key), "client_ca": None}
        assert listeners.public_url == f"https://{socket.gethostname()}:{port}/v1"
        assert listeners.gateway_url.startswith("http://127.0.0.1:") and str(port) not in listeners.gateway_url
        with pytest.raises(Unavailable):
            open_listeners(with_tls(PLAIN, None, None, None, None), port, 0)
    finally:
        listeners.close()


def test_certificates_that_cannot_be_used_are_told_before_anything_starts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, _ = authority.issue("gateway", "127.0.0.1")
    _, other = authority.issue("other", "127.0.0.1")
    for named in ((cert, other, None), (cert, None, None), (tmp_path / "none.pem", other, None)):
        with pytest.raises(Invalid) as caught:
            tls_files(with_tls(PLAIN, None, *named))
        assert caught.value.code == "tls_unreadable"
    with pytest.raises(Invalid) as caught:
        tls_files(with_tls(PLAIN, None, None, None, authority.file))
    assert caught.value.code == "tls_incomplete"


def test_settings_come_from_the_environment_and_the_command_line_wins(tmp_path: Path) -> None:
    env = {
        "GROUNDPLAN_HOST": "192.0.2.7", "GROUNDPLAN_TLS_CERT": "/c.pem", "GROUNDPLAN_TLS_KEY": "/k.pem",
        "GROUNDPLAN_TLS_CLIENT_CA": "/ca.pem", "GROUNDPLAN_DRAIN_SECONDS": "600",
    }  # fmt: skip
    settings = load_settings(env)
    assert (settings.host, settings.tls_cert, settings.drain_seconds) == ("192.0.2.7", Path("/c.pem"), 600.0)
    assert settings.tls_client_ca == Path("/ca.pem")
    assert with_tls(settings, "::1", tmp_path / "x", None, None).tls_cert == tmp_path / "x"
    assert with_tls(settings, "::1", None, None, None).tls_key == Path("/k.pem")
    assert settings.request_memory == 256 << 20
    assert load_settings({"GROUNDPLAN_REQUEST_MEMORY": "1"}).request_memory == 1 << 20
    assert settings.cache_memory == 256 << 20
    assert load_settings({"GROUNDPLAN_CACHE_MEMORY": "64"}).cache_memory == 64 << 20
    for wrong in ("0", "-1", "much", "nan"):
        for name in ("GROUNDPLAN_REQUEST_MEMORY", "GROUNDPLAN_CACHE_MEMORY"):
            with pytest.raises(Invalid):
                load_settings({name: wrong})
    for wrong in ("-1", "soon", "1e9", "nan"):
        with pytest.raises(Invalid):
            load_settings({"GROUNDPLAN_DRAIN_SECONDS": wrong})


@pytest.mark.parametrize(("days", "state"), [(60, "ok"), (3, "warn"), (-3, "bad")])
def test_doctor_says_how_long_the_certificate_holds(tmp_path: Path, days: int, state: str) -> None:
    cert, key = Authority(tmp_path, days=days).issue("gateway", "127.0.0.1")
    settings = with_tls(PLAIN, None, cert, key, None)
    [check] = _check_certificate(Home(tmp_path), settings)
    assert check.state == state and str(cert) in check.message
    now, home = datetime.now(UTC), Home(tmp_path / "home")
    home.create()
    tls = {"cert": str(cert), "key": str(key), "client_ca": None}
    Supervisor(home).announce("http://127.0.0.1:1/v1", "http://127.0.0.1:2", tls=tls)  # as its command line said
    assert list(_check_certificate(home, PLAIN)) == [check]
    named = [
        Services(place, PLAIN, None, False, None, None, SystemClock()).certificate()  # type: ignore[arg-type]
        for place in (home, Home(tmp_path))
    ]
    assert named == [ServerFiles(cert, key), None] and health.certificate_problems(None, now) == []
    assert bool(health.certificate_problems(ServerFiles(cert, key), now)) is (state != "ok")
    key.write_text("")
    (told,) = health.certificate_problems(ServerFiles(cert, key), now)
    assert "cannot be used" in told and "a worker that starts cannot serve" in told
    assert [check.state for check in _check_certificate(Home(tmp_path), settings)] == ["bad"]
    assert list(_check_certificate(Home(tmp_path), PLAIN)) == []


@pytest.mark.parametrize(("days", "state"), [(7, "ok"), (-1, "bad")])
def test_doctor_says_how_long_lists_of_revoked_certificates_hold(tmp_path: Path, days: int, state: str) -> None:
    authority, callers = Authority(tmp_path), tmp_path / "callers.pem"
    callers.write_bytes(authority.file.read_bytes())
    settings = with_tls(PLAIN, None, *authority.issue("gateway", "127.0.0.1"), callers)
    assert [check.name for check in _check_certificate(Home(tmp_path), settings)] == ["certificate"]
    callers.write_bytes(
        callers.read_bytes() + authority.revocation_list(days=60) + authority.revocation_list(days=days)
    )
    _, told = _check_certificate(Home(tmp_path), settings)
    assert (told.name, told.state, bool(told.hint)) == ("revoked certificates", state, state == "bad")


def test_a_yes_that_is_written_otherwise_is_not_taken_for_a_no() -> None:
    name = "GROUNDPLAN_OIDC_TRUST_EMAIL"
    assert [load_settings({name: said}).oidc_trust_email for said in ("yes", "no", "")] == [True, False, False]
    for wrong in ("true", "1", "Yes"):
        with pytest.raises(Invalid, match="setting_invalid"):
            load_settings({name: wrong})
