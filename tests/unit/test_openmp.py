"""A system without OpenMP still runs the embedded model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from groundplan.runtime import openmp

LOADS = """
import ctypes
handle = ctypes.CDLL("libgomp.so.1")
handle.omp_get_max_threads()
print([line.split()[-1] for line in open("/proc/self/maps") if "gomp" in line][0])
"""


def test_the_carried_library_loads_under_its_expected_name(tmp_path: Path) -> None:
    folder = openmp.provide_library(tmp_path / "lib")
    told = subprocess.run(
        [sys.executable, "-c", LOADS],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    library = openmp.find_bundled_library()
    assert library is not None
    assert Path(told.stdout.strip()).resolve() == library.resolve()


def test_providing_again_replaces_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / openmp.LIBRARY).symlink_to(tmp_path / "gone")
    assert (openmp.provide_library(tmp_path) / openmp.LIBRARY).resolve() == openmp.find_bundled_library()


def test_where_the_library_loads_nothing_is_started_again(tmp_path: Path) -> None:
    folder = openmp.provide_library(tmp_path / "lib")
    program = (
        "from pathlib import Path; from groundplan.runtime import openmp;"
        f"openmp.restart_with(Path({str(folder)!r}), 'json.tool', ['--help']); print('same process')"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "same process\n"
