"""Which tests run where, file by file, also after a worker died.

xdist's own order by files puts everything a dead worker ever had back among the files that wait, also files that were
done: the next worker is given one of those, has nothing to tell, and is never given another. The run then waits without
an end (xdist 3.8). Here only what was not done goes back, and the test that the worker died in is told as failed and
not run again: one test, one verdict.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

NOTED = "groundplan/crashed"
"""Where pytest's cache has the tests in which workers of the newest run died."""


class FilesInTurn(LoadFileScheduling):  # type: ignore[misc]
    """Order by files in which the death of a worker costs one failed test, which is noted."""

    def remove_node(self, node: WorkerController) -> str | None:
        """Take a worker out. Returns the test it died in; None: it had none left."""
        had = self.assigned_work.pop(node)
        crashed = next((test for tests in had.values() for test, done in tests.items() if not done), None)
        for file, tests in had.items():
            left = {test: False for test, done in tests.items() if not done and test != crashed}
            if left:
                self.workqueue[file] = left
        for other in self.assigned_work:
            self._reschedule(other)
        cache = getattr(self.config, "cache", None)
        if cache is not None and crashed is not None:
            cache.set(NOTED, [*cache.get(NOTED, []), crashed])
        return crashed
