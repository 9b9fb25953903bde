"""`scripts/setup.sh`, with stand-ins for Python: which one it refuses, and what it repairs."""

from __future__ import annotations

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "setup.sh"


def stand_in(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def set_up(python: Path | str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(SCRIPT), str(python), str(folder / "venv"), "lock.txt"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_python_that_is_old_or_has_no_pip_or_is_none_is_refused(tmp_path: Path) -> None:
    old = stand_in(tmp_path / "python3.9", "exit 1")
    for python in (old, tmp_path / "none", ""):
        done = set_up(python, tmp_path)
        assert done.returncode == 69 and "Python 3.11, 3.12 or 3.13 with venv and pip" in done.stderr, done
        assert "python3-venv" in done.stderr and (str(python) in done.stderr) and not (tmp_path / "venv").exists()


def test_an_environment_that_was_left_without_pip_is_made_again(tmp_path: Path) -> None:
    """As where Debian's python3-venv was installed after the first attempt."""
    stand_in(tmp_path / "venv" / "bin" / "python", f'case "$2" in pip) [ -e "{tmp_path}/made" ] ;; esac')
    python = stand_in(tmp_path / "python3.12", f'case "$2" in venv) touch "{tmp_path}/made" ;; esac')
    done = set_up(python, tmp_path)
    assert done.returncode == 0, done
    assert (tmp_path / "made").exists() and "packages are ready" in done.stderr
    again = set_up(python, tmp_path)
    assert again.returncode == 0 and "making" not in again.stderr
