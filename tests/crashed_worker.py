"""Scheduling of tests by files for pytest-xdist, also after a worker died.

xdist's own scheduling by files requeues everything that a dead worker ever had, also completed files: the next worker
gets one of those, has nothing to report, and never gets another. The run then never ends (xdist 3.8). Here only
unfinished tests are requeued, and the test in which the worker died is reported as failed and not run again.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

CACHE_KEY = "groundplan/crashed"
"""Key of pytest's cache for the tests in which workers of the latest run died."""


class FilesInTurn(LoadFileScheduling):  # type: ignore[misc]
    """Scheduling by files in which the death of a worker fails one test, which is recorded in the cache."""

    def remove_node(self, node: WorkerController) -> str | None:
        """Remove a worker. Returns the test in which it died; None if it had no unfinished test."""
        assigned = self.assigned_work.pop(node)
        crashed = next((test for tests in assigned.values() for test, done in tests.items() if not done), None)
        for file, tests in assigned.items():
            unfinished = {test: False for test, done in tests.items() if not done and test != crashed}
            if unfinished:
                self.workqueue[file] = unfinished
        for other in self.assigned_work:
            self._reschedule(other)
        cache = getattr(self.config, "cache", None)
        if cache is not None and crashed is not None:
            cache.set(CACHE_KEY, [*cache.get(CACHE_KEY, []), crashed])
        return crashed
