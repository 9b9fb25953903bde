"""What several workers of a run have forked by one process is each one's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.acceptance.stack import wait_until
from tests.integration import nursery

ROOT = Path(__file__).parents[2]
WORKER = """
import os, sys, time
from tests.integration.nursery import fork_program
for _ in range(2):
    made = fork_program("groundplan.knowledge.parsing.worker", [], 2, os.environ, read=int(sys.argv[1]))
    print(made.pid, flush=True)
time.sleep(600)
"""


def test_what_a_worker_had_forked_ends_with_it_and_no_other_does(tmp_path: Path) -> None:
    reading, writing = os.pipe()  # which nobody closes meanwhile: a parser would end where it is
    command = [sys.executable, "-c", WORKER, str(reading)]
    with nursery.shared(tmp_path):
        workers = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, pass_fds=(reading,))
            for _ in range(2)
        ]
        try:
            forked = [[int(worker.stdout.readline()) for _ in range(2)] for worker in workers if worker.stdout]
            assert len({_parent(pid) for pids in forked for pid in pids}) == 1
            workers[0].send_signal(signal.SIGKILL)
            wait_until(lambda: not any(map(_runs, forked[0])), 30, "they end")
            assert all(map(_runs, forked[1]))
        finally:
            for worker in workers:
                worker.kill()
                worker.communicate()
    assert not any(map(_runs, forked[1]))
    for end in (reading, writing):
        os.close(end)


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
