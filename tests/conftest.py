"""Shared by all tests: one embedded PostgreSQL per run, a fresh migrated database for each test that needs one, and the
order of the tests."""

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
FULL_RUN_TESTS = 5000
"""Number of tests from which a run counts as a full one."""
_SECONDS_BY_FILE: defaultdict[str, float] = defaultdict(float)
_CPU_BY_FILE: defaultdict[str, float] = defaultdict(float)
"""Duration of each file in seconds, and CPU seconds of it and of the processes that it started."""
_CPU_BEFORE = [0.0]
"""CPU seconds up to the end of the previous file."""
_OWN_CLUSTERS: list[tuple[AbstractContextManager[Cluster], Path]] = []
"""Servers that this worker runs, each with the lock file of its users."""
_FAILED = pytest.StashKey[bool]()
late_grammar.defer_loading()
disable_pydantic_plugins()
# No deadlines: how long a property takes says how busy the machine is, not whether it holds.
settings.register_profile(
    "groundplan",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # what explains a failure traces each line of every example
    phases=[phase for phase in Phase if phase is not Phase.explain],
    max_examples=int(os.environ.get("GROUNDPLAN_EXAMPLES", "50")),  # default; more examples find rarer faults
)
settings.load_profile("groundplan")


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the environment of workers and processes. A bare system lacks the library that LightGBM loads."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # otherwise hundreds of processes would compile what they import
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # with more, concurrent tests slow each other down
        os.environ.setdefault(threads, "1")
    if config.option.markexpr != "soak":
        small_pages.forbid()
    gc.disable()  # objects created by the collection of tests stay alive
    if hasattr(config, "workerinput"):
        return
    if (cache := getattr(config, "cache", None)) is not None:
        cache.set(crashed_worker.CACHE_KEY, [])
    made_database.start_run()
    if config.option.basetemp is None and (place := made_database.temporary_folder()) is not None:
        config.option.basetemp, os.environ["TMPDIR"] = str(place / "t"), str(place / "tmp")
        tempfile.tempdir = None
    if not openmp.is_loadable():
        folder = openmp.provide_library(Path(tempfile.mkdtemp(prefix="openmp-")))
        os.environ["LD_LIBRARY_PATH"] = ":".join(filter(None, (str(folder), os.environ.get("LD_LIBRARY_PATH"))))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FilesInTurn:
    """Always schedule by files: otherwise the tests of a file could run in several workers."""
    return FilesInTurn(config, log)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        made_database.end_run(kept=_FAILED in config.stash)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Counts per day (UTC) restart at midnight: a test that would start just before it is delayed until after it."""
    left = DAY_SECONDS - time.time() % DAY_SECONDS
    if left < LATE_SECONDS:
        time.sleep(left + 0.05)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Each worker collects a folder's files starting with a different one, so that only one of them compiles each;
    the collected tests are put into the same order afterwards."""
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
    _SECONDS_BY_FILE[longest_first.file_of_test(report.nodeid)] += report.duration


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    done = yield
    file = longest_first.file_of_test(item.nodeid)
    if nextitem is None or longest_first.file_of_test(nextitem.nodeid) != file:
        now = _cpu_seconds()
        _CPU_BY_FILE[file] += now - _CPU_BEFORE[0]
        _CPU_BEFORE[0] = now
    return done


def _cpu_seconds() -> float:
    """CPU seconds of this process and of all ended processes that it started."""
    ours = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in ours) + nursery.cpu_seconds()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for file, seconds in getattr(node, "workeroutput", {}).get(longest_first.CACHE_KEY, {}).items():
        _CPU_BY_FILE[file] += seconds


def pytest_collection_finish() -> None:
    forked_parsers.install()
    gc.freeze()
    gc.enable()
    _CPU_BEFORE[0] = _cpu_seconds()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Record the result and durations; `scripts/again.py` and `scripts/longest.py` use only those of full runs."""
    if exitstatus != pytest.ExitCode.OK:
        session.config.stash[_FAILED] = True
    cache = getattr(session.config, "cache", None)
    if cache is not None and not hasattr(session.config, "workerinput"):
        cache.set("groundplan/ended", int(exitstatus))
        if session.testscollected >= FULL_RUN_TESTS:
            cache.set(
                longest_first.CACHE_KEY,
                {file: [seconds, _CPU_BY_FILE[file]] for file, seconds in _SECONDS_BY_FILE.items()},
            )
    elif hasattr(session.config, "workeroutput"):
        session.config.workeroutput[longest_first.CACHE_KEY] = dict(_CPU_BY_FILE)
    # not at the end of a test, whose timeout is three minutes: another worker's last file may take longer
    for running, users in _OWN_CLUSTERS:
        _wait_for_others(users)
        running.__exit__(None, None, None)
    _OWN_CLUSTERS.clear()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Under xdist the controller runs the server, so that a worker that dies does not end the server of the others."""
    own = hasattr(session.config, "workerinput") or session.config.option.collectonly
    if getattr(session.config.option, "numprocesses", None) and not own:
        shared = ExitStack()
        shared.enter_context(nursery.shared(made_database.folder()))
        atexit.register(shared.close)
        _run_cluster()


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """The database server of the run."""
    with (made_database.folder() / "cluster.users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield found_cluster(made_database.folder() / "cluster") if _is_running() else _run_cluster()


def _is_running() -> bool:
    return (made_database.folder() / "cluster.started").exists()


def _run_cluster() -> Cluster:
    folder = made_database.folder()
    made_database.copy_database(folder / "cluster")
    running = cluster(folder / "cluster")
    found = running.__enter__()
    for name in ("cluster.users", "cluster.started"):
        (folder / name).touch()
    _OWN_CLUSTERS.append((running, folder / "cluster.users"))
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
