"""A worker whose journal is on a truly full disk: a small file system of its own, filled to the last byte.

New calls are refused, those under way are settled, nothing is sent that is not recorded, and all goes on when there is
room again. Needs a mount namespace: root has it, others where the system allows user namespaces.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from tests.integration.gateway_stack import (
    Reply,
    Stack,
    blueprint,
    deployment,
    installation,
    scripted_upstream,
    workload,
)
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from groundplan.core.audit.keys import create_keys
from groundplan.core.home import Home
from groundplan.gateway.journal.segments import SPARE_SEGMENTS
from groundplan.gateway.journal.shipper import Shipper
from groundplan.runtime.backup import backup
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script

SEGMENT = 256 << 10
UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
MOUNT = """mount -t tmpfs -o mode=0700,size="$1" groundplan-test "$0" && head -c "$2" /dev/zero > "$0/ballast" &&
    shift 2 && exec "$@\""""


def _mounts() -> bool:
    try:
        asked = [*UNSHARE, "sh", "-c", MOUNT, "/tmp", "1m", "0", "true"]
        return subprocess.run(asked, capture_output=True, timeout=10).returncode == 0
    except OSError:
        return False


needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0 and not _mounts(), reason="NOT RUN: a full disk needs root, or user namespaces with mounts"
)
"""As root nothing is skipped: where root cannot mount, the tests fail."""


def start(stack: Stack, size: str, taken: int = 0) -> subprocess.Popen[bytes]:
    """A worker whose journal folder is a file system of `size`, of which so many bytes are taken."""
    fd = stack.listening.fileno()
    worker = [sys.executable, "-m", "groundplan.gateway.app", "--home", str(stack.home.root), "--fd", str(fd)]
    mounted = [*UNSHARE, "sh", "-c", MOUNT, str(stack.home.journal), size, str(taken)]
    with (stack.home.logs / "gateway.log").open("ab") as log:
        process = subprocess.Popen(
            [*mounted, *worker, "--segment-bytes", str(SEGMENT)],
            pass_fds=(fd,),
            stdout=log,
            stderr=log,
            env={**os.environ, "GROUNDPLAN_DATABASE_URL": stack.database.dsn},
        )
    stack.workers.append(process)
    return process


def inside(stack: Stack) -> Home:
    """The HOME as the worker sees it."""
    return Home(Path(f"/proc/{stack.workers[0].pid}/root{stack.home.root}"))


def room_made(home: Home) -> int:
    """Bytes that the segments of the journal take on the disk."""
    return sum(segment.stat().st_blocks * 512 for segment in home.journal.glob("*/*.seg"))


def fill(ballast: Path) -> None:
    """Take every byte that is left."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


def unavailable(reply: Reply) -> bool:
    if reply.status == 200:
        return False
    assert (reply.status, reply.code) == (503, "journal_unavailable"), reply.body
    error = reply.json["error"]
    assert error["hint"] and "room" in error["message"] and reply.headers["retry-after"]
    assert b"Traceback" not in reply.body and b"Errno" not in reply.body
    return True


async def until_full(stack: Stack, key: str) -> int:
    """Calls until all of a round are refused; how many were answered."""
    answered = 0
    end = time.monotonic() + 60
    while time.monotonic() < end:
        replies = await asyncio.gather(*(stack.chat(key) for _ in range(16)))
        refused = [unavailable(reply) for reply in replies]
        answered += refused.count(False)
        if all(refused):
            return answered
    raise AssertionError("the journal never filled")


@needs_mounts
async def test_a_full_disk_refuses_new_calls_settles_open_ones_and_recovers(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("primary") as (model, port), installation(database, tmp_path) as stack:
        place = deployment("primary", port, first_token_ms=30_000, idle_ms=30_000)
        talker = deployment("talker", port, kind="realtime")
        stack.apply(blueprint(1, [place, talker], [workload("assistant", ["primary"], also=["talker"])]))
        start(stack, "2m")
        await stack.wait_until_ready()
        key = stack.key()
        home = inside(stack)
        async with asyncio.timeout(30):
            while room_made(home) < (1 + SPARE_SEGMENTS) * SEGMENT:  # noqa: ASYNC110 -- by another process
                await asyncio.sleep(0.02)
        fill(home.journal / "ballast")
        model.script = Script(latency_ms=4000)
        open_calls = [asyncio.create_task(stack.chat(key)) for _ in range(4)]
        while model.counted < 4:  # noqa: ASYNC110 -- of the shipped model, which has no event for it
            await asyncio.sleep(0.02)
        model.script = Script()
        answered = await until_full(stack, key)
        assert model.counted == answered + 4, "what was refused was never sent"
        assert unavailable(await stack.chat(key, headers={"idempotency_key": "one"}))
        assert model.counted == answered + 4
        url = f"ws://127.0.0.1:{stack.port}/v1/realtime?model=talker"
        async with connect(url, additional_headers={"Authorization": f"Bearer {key}"}, proxy=None) as conversation:
            await conversation.send('{"type":"response.create"}')
            created, told = [json.loads(await conversation.recv()) for _ in range(2)]
            await conversation.wait_closed()
        assert created["type"] == "session.created" and told["error"]["code"] == "journal_unavailable"
        assert conversation.close_code == 1011
        assert {reply.status for reply in await asyncio.gather(*open_calls)} == {200}, "open calls are answered"
        assert (await stack.ask("GET", "/livez", None)).status == 200
        assert stack.workers[0].poll() is None

        (home.journal / "ballast").unlink()
        end = time.monotonic() + 60
        while unavailable(again := await stack.chat(key)):
            assert time.monotonic() < end, "it goes on when there is room"
            await asyncio.sleep(0.1)
        assert again.status == 200
        with psycopg.connect(database.urls["shipper"], autocommit=True) as conn:
            shipper = Shipper(home)
            for _ in range(5):
                shipper.run_round(conn)
        assert stack.sql("SELECT count(*) FROM attempt WHERE state = 'settled'") == [(model.counted,)]
        assert stack.sql("SELECT count(*) FROM attempt WHERE state <> 'settled'") == [(0,)]
        assert stack.sql("SELECT count(*) FROM call WHERE status = 'ok'") == [(answered + 5,)]
        assert "Traceback" not in (stack.home.logs / "gateway.log").read_text()


@needs_mounts
async def test_a_worker_does_not_start_on_a_full_disk_and_says_why(database: Database, tmp_path: Path) -> None:
    async with installation(database, tmp_path) as stack:
        worker = start(stack, "64k")
        assert await asyncio.to_thread(worker.wait, 60) == 69
        log = (stack.home.logs / "gateway.log").read_text()
        assert "journal_unavailable" in log and "Free space" in log and "Traceback" not in log


@needs_mounts
@pytest.mark.parametrize(
    ("taken", "code", "told"), [((1 << 20) - 16_384, "disk_full", "is full"), (0, "postgres_init", "MiB free")]
)
def test_a_restore_that_finds_no_room_says_so_and_leaves_nothing(
    database: Database, tmp_path: Path, taken: int, code: str, told: str
) -> None:
    made, small = Home(tmp_path / "made"), tmp_path / "small"
    made.create()
    create_keys(made)
    backup(made, database.settings(made.root), tmp_path / "archive", lambda _: None)
    small.mkdir()
    command = [sys.executable, "-m", "groundplan.cli.main", "restore", str(tmp_path / "archive"), "--json"]
    restored = [*command, "--home", str(small / "home")]
    listed = ["sh", "-c", '"$@"; ls -A "$0"', str(small), *restored]
    ran = subprocess.run(
        [*UNSHARE, "sh", "-c", MOUNT, str(small), "1m" if taken else "24m", str(taken), *listed],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "GROUNDPLAN_DATABASE_URL"},
    )
    answer, end = json.JSONDecoder().raw_decode(ran.stdout)
    error = answer["error"]
    assert error["code"] == code and told in error["message"] and str(small) in error["message"]
    assert error["hint"] and "Traceback" not in ran.stderr
    assert ran.stdout[end:].split() == ["ballast"]


@needs_mounts
async def test_callers_are_told_while_a_worker_cannot_begin_its_journal(database: Database, tmp_path: Path) -> None:
    """As one that was killed on a full disk, in whose place another one starts: nobody waits for nothing, unless there
    is somebody who answers; and it serves as soon as there is room."""
    async with scripted_upstream("primary") as (model, port), installation(database, tmp_path) as stack:
        stack.apply(blueprint(1, [deployment("primary", port)], [workload("assistant", ["primary"])]))
        key = stack.key()
        start(stack, "4m", (4 << 20) - (64 << 10))
        reply = await stack.ask_once(key)
        assert (reply.status, reply.code) == (503, "journal_unavailable")
        assert reply.json["error"]["hint"] and reply.headers["retry-after"]
        with pytest.raises(InvalidStatus) as refused:
            url = f"ws://127.0.0.1:{stack.port}/v1/realtime?model=talker"
            await connect(url, additional_headers={"Authorization": f"Bearer {key}"}, proxy=None)
        assert refused.value.response.status_code == 503
        assert json.loads(refused.value.response.body or b"")["error"]["code"] == "journal_unavailable"
        assert (await stack.ask("GET", "/livez", None)).status == 200
        assert (await stack.ask("GET", "/readyz", None)).status == 503
        assert not [path for path in inside(stack).journal.iterdir() if path.name.endswith(".new")]
        (inside(stack).journal / "ballast").unlink()
        await stack.wait_until_ready()
        assert (await stack.chat(key)).status == 200 and model.counted == 1
        log = (stack.home.logs / "gateway.log").read_text()
        assert log.count("the journal cannot be made") == 1 and "Traceback" not in log


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


@needs_mounts
@pytest.mark.parametrize(
    ("command", "code", "told"),
    [(("up", "--port", "0", "--control-port", "0"), 69, "home_unusable"), (("doctor",), 1, "cannot be written")],
)
def test_a_home_that_cannot_be_written_is_said(tmp_path: Path, command: tuple[str, ...], code: int, told: str) -> None:
    home = tmp_path / "home"
    Home(home).create()
    run = [sys.executable, "-m", "groundplan.cli.main", *command, "--home", str(home)]
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", READ_ONLY, str(home), *run], capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert done.returncode == code, done
    assert str(home) in done.stdout + done.stderr and told in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@needs_mounts
@pytest.mark.parametrize(
    ("room", "told"),
    [
        ("size=1m,nr_inodes=0", "1 MiB are free in {}"),
        ("size=2g,nr_inodes=100", "2048 MiB are free in {}, but in no more than 99 files"),
        ("size=2g,ro", "{} takes no new file: Read-only file system"),
    ],
)
def test_the_doctor_looks_at_each_disk_below_home(tmp_path: Path, room: str, told: str) -> None:
    home = Home(tmp_path / "home")
    home.create()
    run = [sys.executable, "-m", "groundplan.cli.main", "doctor", "--home", str(home.root), "--json"]
    mounted = f'mount -t tmpfs -o {room} groundplan-test "$0" && exec "$@"'
    done = subprocess.run([*UNSHARE, "sh", "-c", mounted, str(home.journal), *run], capture_output=True, timeout=60)
    disks = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "disk"]
    assert done.returncode == 1
    assert told.format(home.journal) in [
        check["message"] for check in disks if check["state"] == "bad" and check["hint"]
    ]
    assert len(disks) == 2
