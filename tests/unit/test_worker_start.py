"""What a process loads before it can serve: nothing that only others need, and nothing that must be compiled again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from groundplan.core.home import Home
from groundplan.core.settings import child_environment
from groundplan.gateway.app import Worker
from groundplan.gateway.http.listeners import is_serving, mark_serving, serving_file

OTHERS = (
    "structlog",
    "rich",
    "pygments",
    "numpy",
    "pydantic",
    "sqlalchemy",
    "uvicorn",
    "websockets",
    "any_llm",
    "cedarpy",
)


def test_a_worker_loads_nothing_that_only_others_need() -> None:
    code = f"import sys, groundplan.gateway.app; print(sorted(set({OTHERS}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_started_processes_write_bytecode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "loaded.py").touch()
    environment = child_environment({"PYTHONPATH": str(tmp_path)})
    subprocess.run([sys.executable, "-c", "import loaded"], env=environment, check=True)
    assert list((tmp_path / "__pycache__").glob("loaded.*.pyc"))


def test_started_processes_compute_on_one_thread_unless_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for said in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(said, raising=False)
    code = "import numpy, threadpoolctl; print(*{each['num_threads'] for each in threadpoolctl.threadpool_info()})"

    def threads() -> str:
        done = subprocess.run([sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True)
        return done.stdout.strip()

    assert threads() == "1"
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    assert threads() == str(min(2, os.cpu_count() or 1))


def test_a_ready_file_of_an_earlier_process_with_the_same_pid_is_ignored(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert not is_serving(home, os.getpid())
    mark_serving(home)
    assert is_serving(home, os.getpid())
    left = serving_file(home, os.getpid()).read_text()
    for before in ("ready\n", f"{int(left) - 1}\n"):
        serving_file(home, os.getpid()).write_text(before)
        assert not is_serving(home, os.getpid())
    assert not is_serving(home, 2**22 + 1), "which no process has"


def test_a_worker_serves_although_home_is_full_and_announces_itself_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal may be on another disk, which has room."""
    worker: Any = SimpleNamespace(_home=Home(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(
            "groundplan.gateway.http.listeners.write_atomically", lambda *_: (_ for _ in ()).throw(OSError(28))
        )
        assert not Worker._mark_serving(worker) and not is_serving(worker._home, os.getpid())
    assert Worker._mark_serving(worker) and is_serving(worker._home, os.getpid())


def test_leftovers_of_killed_workers_are_deleted_when_the_next_is_ready(tmp_path: Path) -> None:
    """One that keeps dying is started thousands of times a day."""
    home, gone = Home(tmp_path), 2**22 + 1
    left = serving_file(home, gone)
    left.parent.mkdir(parents=True)
    left.touch()
    left.with_name(f".{gone}.{gone}.tmp").touch()
    serving_file(home, os.getppid()).touch()
    mark_serving(home)
    assert {path.name for path in left.parent.iterdir()} == {str(os.getpid()), str(os.getppid())}


def test_the_process_that_parses_documents_loads_no_numpy() -> None:
    """It is started for every few documents, and most of them need none."""
    code = "import sys, groundplan.knowledge.parsing.worker as worker; print('numpy' in sys.modules or worker is None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("program", [("groundplan.program", "some"), ("groundplan.cli.main", "check", ".")])
def test_plugins_of_other_packages_are_not_loaded(tmp_path: Path, program: tuple[str, ...]) -> None:
    """To look for them takes a tenth of the computing of a start."""
    declared = tmp_path / "odd-1.dist-info"
    declared.mkdir()
    (declared / "METADATA").write_text("Name: odd\nVersion: 1\n")
    (declared / "entry_points.txt").write_text("[pydantic]\nodd = odd:plugin\n")
    (tmp_path / "odd.py").write_text("raise SystemExit('odd was loaded')\n")
    (tmp_path / "some.py").write_text(
        "import pydantic\n\n\nclass Some(pydantic.BaseModel):\n    name: str\n\n\ndef main():\n    return 0\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(tmp_path), environment.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", *program], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "odd was loaded" not in done.stderr and "Traceback" not in done.stderr
