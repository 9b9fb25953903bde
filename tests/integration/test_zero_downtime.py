"""Nothing that happens to a gateway on purpose fails a call: new code, a new certificate, a new blueprint. Real
processes under constant traffic."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import time
from pathlib import Path

import msgspec
import pytest
from tests.contract.ways import Authority
from tests.integration.zero_downtime import RunningWorkers, Traffic, is_alive, reload_workers, run_workers, wait_until

from groundplan.blueprint import artifact
from groundplan.blueprint.model import Blueprint
from groundplan.gateway.http.listeners import serving_file
from groundplan.gateway.http.tls import ServerFiles
from groundplan.testing.database import Database


async def test_new_code_and_a_new_blueprint_fail_no_call(database: Database, tmp_path: Path) -> None:
    async with run_workers(database, tmp_path) as run:
        before = run.pids()
        async with run.traffic() as traffic:
            reload_state = await reload_workers(run)
            assert reload_state["state"] == "done", (reload_state, run.notices)
            after = run.pids()
            assert set(reload_state["replaced"]) == {"gateway-0", "gateway-1"}
            assert all(after[name] not in (None, before[name]) for name in before)
            await wait_until(lambda: not any(is_alive(pid) for pid in before.values()), 60)
            counted = traffic.done, traffic.streams
            run.stack.apply(_second(run))
            await wait_until(lambda: _blueprints(run) == {2})
            await wait_until(lambda: traffic.done > counted[0] + 20 and traffic.streams > counted[1] + 2)
        assert traffic.failed == []
        assert not any(serving_file(run.stack.home, pid or 0).exists() for pid in before.values())


def _second(run: RunningWorkers) -> Blueprint:
    [[body]] = run.stack.sql("SELECT body FROM blueprint WHERE number = 1")
    return msgspec.structs.replace(artifact.decode(bytes(body)), number=2)


def _blueprints(run: RunningWorkers) -> set[int]:
    return {number for (number,) in run.stack.sql("SELECT blueprint FROM gateway WHERE state = 'live' AND ready")}


async def test_a_reload_whose_new_workers_cannot_serve_changes_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_workers(database, tmp_path) as run:
        before = run.pids()
        async with run.traffic() as traffic:
            monkeypatch.setenv("PYTHONPATH", str(_broken(tmp_path)))
            reload_state = await reload_workers(run)
            assert reload_state["state"] == "failed" and "gateway-0" in reload_state["message"]
            assert run.pids() == before
            monkeypatch.delenv("PYTHONPATH")
            counted = traffic.done
            await wait_until(lambda: traffic.done > counted + 20)
        assert traffic.failed == []


def _broken(folder: Path) -> Path:
    """Code that cannot start."""
    place = folder / "broken"
    place.mkdir()
    (place / "uvloop.py").write_text("raise SystemExit(70)\n")
    return place


async def test_a_renewed_certificate_is_used_for_new_connections_and_ends_none(
    database: Database, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("gateway", "127.0.0.1")
    context = ssl.create_default_context(cafile=str(authority.file))
    async with run_workers(database, tmp_path, ServerFiles(cert, key)) as run, run.traffic(context) as traffic:
        first = set(traffic.serials)
        assert len(first) == 1
        other, secret = authority.issue("renewed", "127.0.0.1")
        cert.write_bytes(other.read_bytes())
        await asyncio.sleep(0.2)
        key.write_bytes(secret.read_bytes())
        for pid in run.pids().values():
            os.kill(pid or 0, signal.SIGHUP)

        async def shown() -> str:
            _, writer = await asyncio.open_connection("127.0.0.1", traffic.port, ssl=context)
            serial = str(writer.get_extra_info("peercert")["serialNumber"])
            writer.close()
            return serial

        async def settled() -> bool:
            return not first & {await shown() for _ in range(8)}

        end = time.monotonic() + 30
        while not await settled():
            assert time.monotonic() < end
            await asyncio.sleep(0.1)
        counted = traffic.done
        await wait_until(lambda: traffic.done > counted + 20)
        plain = Traffic(run.listeners.local.getsockname()[1] if run.listeners.local else 0, traffic.key)
        reader, writer = await asyncio.open_connection("127.0.0.1", plain.port)
        assert (await plain.ask(reader, writer, stream=False))[0] == 200
        writer.close()
        assert traffic.failed == []


async def test_a_client_certificate_is_required_and_recorded_in_the_ledger(database: Database, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("gateway", "127.0.0.1")
    context = ssl.create_default_context(cafile=str(authority.file))
    async with run_workers(database, tmp_path, ServerFiles(cert, key, authority.file)) as run:
        stranger = Traffic(run.listeners.public.getsockname()[1], run.stack.key(), context)
        with pytest.raises((OSError, EOFError)):
            reader, writer = await asyncio.open_connection("127.0.0.1", stranger.port, ssl=context)
            try:
                await stranger.ask(reader, writer, stream=False)
            finally:
                writer.close()
        context.load_cert_chain(*authority.issue("robot"))
        async with run.traffic(context) as traffic:
            await wait_until(lambda: traffic.done > 0)
        assert traffic.failed == []
        await wait_until(lambda: run.stack.sql("SELECT 1 FROM call LIMIT 1") == [(1,)])
        assert run.stack.sql("SELECT DISTINCT detail ->> 'client' FROM call") == [("CN=robot",)]
