"""Folders for files on their way: those of killed processes go, those of living ones stay."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from groundplan.core.scratch import scratch_folder

_USING = """
import sys, time
from pathlib import Path
from groundplan.core.scratch import scratch_folder
with scratch_folder("on-its-way-", Path(sys.argv[1])) as folder:
    (folder / "rows").write_bytes(bytes(1000))
    print(folder.name, flush=True)
    time.sleep(600)
"""


@contextmanager
def using(within: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process in the midst of it, and the name of its folder."""
    process = subprocess.Popen([sys.executable, "-c", _USING, str(within)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_folder_of_a_killed_process_goes_with_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "on-its-way-of-somebody").write_bytes(b"a file")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "on-its-way-link").symlink_to(tmp_path / "elsewhere")
    with using(tmp_path) as (_, lives):
        with using(tmp_path) as (killed, left):
            killed.kill()
            killed.wait()
        files = len([*Path("/proc/self/fd").iterdir()])
        assert (tmp_path / left / "rows").exists()
        with scratch_folder("on-its-way-", tmp_path) as folder:
            (folder / "more").write_bytes(b"1")
            found = {path.name for path in tmp_path.iterdir()}
        assert found == {lives, folder.name, "elsewhere", "on-its-way-of-somebody", "on-its-way-link"}
        assert (tmp_path / lives / "rows").exists()
        assert not folder.exists() and len([*Path("/proc/self/fd").iterdir()]) == files


def test_a_folder_that_was_moved_to_its_place_stays_there(tmp_path: Path) -> None:
    with scratch_folder(".made-", tmp_path) as folder:
        (folder / "program").write_bytes(b"1")
        folder.rename(tmp_path / "placed")
    assert [path.name for path in tmp_path.iterdir()] == ["placed"]
    assert (tmp_path / "placed" / "program").exists()
