"""What is computed in a process of its own: answers, refusals, deaths, who waits; and what of placement goes there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.placement_rig import company, workload

from groundplan.api.placement import views
from groundplan.core.errors import GroundplanError, Invalid, NotFound, Unavailable
from groundplan.placement import plan_process, whatif, workload_routes
from groundplan.placement.plan_process import cached_plan
from groundplan.runtime import compute_process as aside_module
from groundplan.runtime.compute_process import ComputeProcess


@pytest.fixture(scope="module")
def aside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComputeProcess]:
    made = ComputeProcess(tmp_path_factory.mktemp("logs") / "planning.log", (views.__name__,))
    yield made
    made.close()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def at_work(aside: ComputeProcess, pipe: Path) -> tuple[threading.Thread, list[GroundplanError]]:
    """Somebody waits for a question that takes until the process ends; and what it was refused with."""
    refused: list[GroundplanError] = []

    def ask() -> None:
        try:
            aside.ask(Path.read_text, pipe)
        except GroundplanError as error:
            refused.append(error)

    os.mkfifo(pipe)
    thread = threading.Thread(target=ask)
    thread.start()
    os.open(pipe, os.O_WRONLY)  # returns when the other side reads
    return thread, refused


def test_answers_come_from_a_low_priority_process_without_secrets(
    aside: ComputeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDPLAN_DATABASE_URL", "postgresql://owner:secret@localhost/x")
    aside.ask(os.getpid)
    pid = aside.pid
    assert pid is not None and pid != os.getpid()
    assert aside.ask(os.getpid) == pid  # one for all of them
    assert aside.ask(os.getenv, "GROUNDPLAN_DATABASE_URL") is None
    assert aside.ask(os.nice, 0) >= 10
    if sys.platform == "linux":
        assert aside.ask(Path.read_text, Path("/proc/self/oom_score_adj")) == "1000\n"


def test_errors_of_the_compute_process_are_raised_in_the_caller(aside: ComputeProcess) -> None:
    with pytest.raises(Invalid) as here:
        whatif.parse_changes(["no value"], [], [], [])
    with pytest.raises(Invalid) as refused:
        aside.ask(whatif.parse_changes, ["no value"], [], [], [])
    assert (str(refused.value), refused.value.hint) == (str(here.value), here.value.hint)
    with pytest.raises(RuntimeError, match="ValueError"):
        aside.ask(int, "none")
    assert aside.ask(int, "7") == 7


def test_after_a_kill_the_request_fails_and_the_next_is_answered(aside: ComputeProcess, tmp_path: Path) -> None:
    first = aside.ask(os.getpid)
    os.kill(first, signal.SIGKILL)
    until(lambda: aside.pid is None)
    second = aside.ask(os.getpid)  # between two questions nobody notices
    assert second != first
    thread, refused = at_work(aside, tmp_path / "pipe")
    os.kill(second, signal.SIGKILL)
    thread.join()
    assert [(error.status, error.code, bool(error.hint)) for error in refused] == [(503, "planning_ended", True)]
    assert aside.ask(os.getpid) not in (first, second)


def test_a_computation_that_takes_too_long_is_ended(aside: ComputeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    before = aside.ask(os.getpid)
    monkeypatch.setattr(aside_module, "ANSWER_SECONDS", 0.1)
    with pytest.raises(Unavailable) as refused:
        aside.ask(time.sleep, 60)
    assert refused.value.code == "planning_long" and not Path(f"/proc/{before}").exists()


def test_requests_beyond_the_queue_are_refused(aside: ComputeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside_module, "MAX_WAITING", 0)
    with pytest.raises(Unavailable) as refused:
        aside.ask(os.getpid)
    assert refused.value.code == "planning_busy" and refused.value.retry_after
    monkeypatch.setattr(aside_module, "WAIT_SECONDS", -1.0)
    monkeypatch.setattr(aside_module, "MAX_WAITING", 1)
    with pytest.raises(Unavailable):  # it waited for too long
        aside.ask(os.getpid)


def test_the_compute_process_ends_when_idle(aside: ComputeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside_module, "IDLE_SECONDS", 0.02)
    before = aside.ask(os.getpid)
    until(lambda: not Path(f"/proc/{before}").exists())
    assert aside.ask(os.getpid) != before


def test_a_process_with_newer_code_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside_module, "code_digest", lambda: "of before")
    made = ComputeProcess(tmp_path / "planning.log", ())
    assert [made.ask(os.getpid), made.ask(os.getpid)] == [os.getpid()] * 2 and made.pid is None
    made.close()


def test_waiting_requests_fail_when_the_process_is_closed(tmp_path: Path) -> None:
    made = ComputeProcess(tmp_path / "planning.log", ())
    thread, refused = at_work(made, tmp_path / "pipe")
    pid = made.pid
    made.close()
    thread.join()
    assert [error.code for error in refused] == ["planning_ended"] and not Path(f"/proc/{pid}").exists()
    with pytest.raises(Unavailable):
        made.ask(os.getpid)


ORPHAN = """
import os, sys, time
from pathlib import Path
from groundplan.runtime.compute_process import ComputeProcess
aside = ComputeProcess(Path(sys.argv[1]), ())
print(aside.ask(os.getpid), flush=True)
aside.ask(time.sleep, 60)
"""


def test_the_compute_process_dies_with_its_killed_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ORPHAN, str(tmp_path / "planning.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    until(lambda: is_over(pid))


def is_over(pid: int) -> bool:
    """Whether a process has ended, whoever is to be told of it."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_large_companies_are_planned_in_the_compute_process_and_small_ones_inline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = company(*(workload(name, growth=0.5) for name in ("a", "b", "c")))
    questions: list[tuple[Any, ...]] = [
        (views.plan_json, None), (views.explanation_json, "a"), (views.why_json, "b"),
        (views.what_if_json, whatif.parse_changes([], [], ["a=x9"], [])),
        (views.replan_json, {"a": 3.0}), (views.months_ahead_json, 6, 3), (views.alternatives_json, {}),
        (workload_routes.plan_routes,), (views.plan_body, views.WorkloadPage(1, search="B")),
    ]  # fmt: skip
    here = [function(cached_plan(facts), *arguments) for function, *arguments in questions]
    with plan_process.planning_processes(tmp_path, (views.__name__, workload_routes.__name__)) as (made, urgent):
        assert plan_process.ask_plan(views.plan_json, facts, None) == here[0] and made.pid is None
        monkeypatch.setattr(plan_process, "INLINE_SIZE", 0)
        there = [plan_process.ask_plan(function, facts, *arguments) for function, *arguments in questions]
        assert made.pid is not None
        with pytest.raises(NotFound) as refused:
            plan_process.ask_plan(views.explanation_json, facts, "nobody")
        assert refused.value.code == "workload_unknown" and "a, b, c" in refused.value.hint
        assert (
            urgent.pid is None
            and plan_process.ask_company(workload_routes.unplaceable_workloads, facts, urgent=True) == {}
        )
        assert urgent.pid not in (None, made.pid)
    assert made.pid is urgent.pid is None and there == here
