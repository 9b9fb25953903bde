"""Shared by all tests: one embedded PostgreSQL per run, and a fresh migrated database for each test that wants one."""

from __future__ import annotations

import atexit
import fcntl
import gc
import os
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from groundplan.core.settings import disable_pydantic_plugins
from groundplan.runtime import openmp
from groundplan.testing.database import Cluster, Database, cluster, found_cluster
from tests import crashed_worker, forked_parsers, late_grammar, longest_first, made_database, small_pages
from tests.crashed_worker import FilesInTurn
from tests.integration import nursery

DAY_SECONDS, LATE_SECONDS = 86_400.0, 60.0
WHOLE = 5000
"""A run of at least this many tests counts as complete."""
_TOOK: defaultdict[str, float] = defaultdict(float)
_COMPUTED: defaultdict[str, float] = defaultdict(float)
"""Seconds, and CPU seconds including child processes, of each file."""
_COMPUTED_BEFORE = [0.0]
"""CPU seconds up to the end of the previous file."""
_OURS: list[tuple[AbstractContextManager[Cluster], Path]] = []
"""Servers that this worker runs, and their users."""
_FAILED = pytest.StashKey[bool]()
late_grammar.put_off()
disable_pydantic_plugins()
# What a property takes says how busy the machine is, not whether the property holds.
settings.register_profile(
    "groundplan",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # what explains a failure traces each line of every example
    phases=[phase for phase in Phase if phase is not Phase.explain],
    max_examples=int(os.environ.get("GROUNDPLAN_EXAMPLES", "50")),  # where a test does not say; more find rarer faults
)
settings.load_profile("groundplan")


def pytest_configure(config: pytest.Config) -> None:
    """Set up the environment of workers and child processes, with OpenMP for LightGBM if the system lacks it."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes would compile what they load
    for threads in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    ):  # those of several tests at once only wait for each other
        os.environ.setdefault(threads, "1")
    if config.option.markexpr != "soak":
        small_pages.forbid()
    gc.disable()  # what collecting tests makes stays: nothing of it is garbage
    if hasattr(config, "workerinput"):
        return
    if (cache := getattr(config, "cache", None)) is not None:
        cache.set(crashed_worker.NOTED, [])
    made_database.begin()
    if config.option.basetemp is None and (place := made_database.place_of_files()) is not None:
        config.option.basetemp, os.environ["TMPDIR"] = str(place / "t"), str(place / "tmp")
        tempfile.tempdir = None
    if not openmp.is_loadable():
        folder = openmp.provide_library(Path(tempfile.mkdtemp(prefix="openmp-")))
        os.environ["LD_LIBRARY_PATH"] = ":".join(filter(None, (str(folder), os.environ.get("LD_LIBRARY_PATH"))))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FilesInTurn:
    """Distribute by files for any number of workers; otherwise the tests of a file would run in several of them."""
    return FilesInTurn(config, log)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        made_database.end(kept=_FAILED in config.stash)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Delay tests that would begin just before midnight (UTC), when daily counters start anew."""
    left = DAY_SECONDS - time.time() % DAY_SECONDS
    if left < LATE_SECONDS:
        time.sleep(left + 0.05)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Each worker looks at the files of a folder from another one on, so that each file is compiled by one of them;
    what they find is put in one order afterwards."""
    report = yield
    if hasattr(collector.config, "workerinput") and isinstance(collector, pytest.Dir) and report.result:
        number = collector.config.workerinput["workerid"].removeprefix("gw")
        workers = collector.config.workerinput["workercount"]
        first = len(report.result) * (int(number) if number.isdecimal() else 0) // workers
        report.result = report.result[first:] + report.result[:first]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first = longest_first.order_files(longest_first.load_durations())
    items.sort(
        key=lambda item: (longest_first.position_of(item.nodeid, first), longest_first.file_of_test(item.nodeid))
    )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _TOOK[longest_first.file_of_test(report.nodeid)] += report.duration


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    done = yield
    file = longest_first.file_of_test(item.nodeid)
    if nextitem is None or longest_first.file_of_test(nextitem.nodeid) != file:
        now = _computed()
        _COMPUTED[file] += now - _COMPUTED_BEFORE[0]
        _COMPUTED_BEFORE[0] = now
    return done


def _computed() -> float:
    """CPU seconds of this process and its ended child processes."""
    ours = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in ours) + nursery.computed()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for file, seconds in getattr(node, "workeroutput", {}).get(longest_first.CACHE_KEY, {}).items():
        _COMPUTED[file] += seconds


def pytest_collection_finish() -> None:
    forked_parsers.take_over()
    gc.freeze()
    gc.enable()
    _COMPUTED_BEFORE[0] = _computed()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Record a complete run: `scripts/again.py` and `scripts/longest.py` use only those."""
    if exitstatus != pytest.ExitCode.OK:
        session.config.stash[_FAILED] = True
    cache = getattr(session.config, "cache", None)
    if cache is not None and not hasattr(session.config, "workerinput"):
        cache.set("groundplan/ended", int(exitstatus))
        if session.testscollected >= WHOLE:
            cache.set(longest_first.CACHE_KEY, {file: [seconds, _COMPUTED[file]] for file, seconds in _TOOK.items()})
    elif hasattr(session.config, "workeroutput"):
        session.config.workeroutput[longest_first.CACHE_KEY] = dict(_COMPUTED)
    # here and not at the end of a test, which may take three minutes: another worker's last file may take longer
    for running, users in _OURS:
        _wait_for_others(users)
        running.__exit__(None, None, None)
    _OURS.clear()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Under xdist the controlling process runs the server, so that it outlives a worker that dies."""
    own = hasattr(session.config, "workerinput") or session.config.option.collectonly
    if getattr(session.config.option, "numprocesses", None) and not own:
        shared = ExitStack()
        shared.enter_context(nursery.shared(made_database.folder()))
        atexit.register(shared.close)
        _run_cluster()


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """The server of this run, stopped at its end."""
    with (made_database.folder() / "cluster.users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield found_cluster(made_database.folder() / "cluster") if _is_running() else _run_cluster()


def _is_running() -> bool:
    return (made_database.folder() / "cluster.started").exists()


def _run_cluster() -> Cluster:
    folder = made_database.folder()
    made_database.lay_out(folder / "cluster")
    running = cluster(folder / "cluster")
    found = running.__enter__()
    for name in ("cluster.users", "cluster.started"):
        (folder / name).touch()
    _OURS.append((running, folder / "cluster.users"))
    return found


@pytest.fixture
def database(postgres_cluster: Cluster) -> Iterator[Database]:
    """A fresh migrated database: `database.urls[role]`, `database.dsn`, `database.settings(home)`."""
    with postgres_cluster.database() as fresh:
        yield fresh


def _wait_for_others(users: Path, seconds: float = 600.0) -> None:
    """Wait until no worker uses the server; a worker that died has released its lock."""
    deadline = time.monotonic() + seconds
    with users.open("r") as file:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.1)
            else:
                return
