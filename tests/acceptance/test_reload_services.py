"""A reload replaces all processes of an installation that are not models, such as the search service and the gateway,
while people go on asking about documents and get every answer.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.acceptance.stack import Stack, Upstream, wait_until
from tests.acceptance.test_promise_05_revoked import OWNERS, WORKLOAD, WORKSPACE

RULE = "---\ntitle: Leave\n---\n# Leave\n\nEmployees have 28 days of paid leave a year."
QUESTION = "How many days of paid leave do I have?"
SEARCH, GATEWAY = "groundplan.gateway.search_app", "groundplan.gateway.app"
WORKLOADS = {"asked": "sources: [handbook]", "remembered": "sources: [handbook]\ncache: {answers: exact, ttl: 1h}"}


class Asker(threading.Thread):
    """Asks without pause; `failures` has every answer that failed or has no source."""

    def __init__(self, stack: Stack, key: str) -> None:
        super().__init__(daemon=True)
        self.stack, self.key = stack, key
        self.asked_count, self.failures, self.stopped = 0, list[str](), False

    def run(self) -> None:
        while not self.stopped:
            answer = self.stack.chat(self.key, QUESTION)
            self.asked_count += 1
            if answer.status != 200 or not answer.body["groundplan"]["sources"]:
                self.failures.append(f"{answer.status} {answer.body}")
            time.sleep(0.02)

    def wait_for_more(self, count: int) -> None:
        """Wait until it has asked `count` more times."""
        goal = self.asked_count + count
        wait_until(lambda: self.asked_count >= goal, 60, "people go on asking")


@pytest.mark.timeout(400)
def test_a_reload_replaces_the_search_service_without_a_failed_answer(tmp_path: Path) -> None:
    upstream, workspace = Upstream(tmp_path / "upstream"), tmp_path / "workspace"
    (workspace / "handbook").mkdir(parents=True)
    (workspace / "handbook" / "leave.md").write_text(RULE)
    stack = Stack(tmp_path, workspace)
    upstream.start()
    texts = [WORKLOAD.format(name=name, stage="pilot", owners=OWNERS, more=more) for name, more in WORKLOADS.items()]
    (workspace / "company.yaml").write_text(WORKSPACE.replace("URL", upstream.url) + "".join(texts))
    askers: list[Asker] = []
    try:
        stack.start(120)
        assert stack.control("POST", "/api/knowledge/ingest", {}).status == 200
        askers = [Asker(stack, stack.key(name, "--user", "ana@acme.example")) for name in WORKLOADS]
        for asker in askers:
            wait_until(
                lambda key=asker.key: stack.chat(key, QUESTION).body["groundplan"]["sources"], 60, "it is indexed"
            )
            asker.start()
            asker.wait_for_more(5)
        before, workers = stack.pids(SEARCH), stack.pids(GATEWAY)
        reload = stack.cli("reload")
        assert reload["state"] == "done" and reload["replaced"]["search"]["before"] == before[0]
        assert len(reload["replaced"]) == 2 + len(workers) and "control" in reload["replaced"]
        wait_until(lambda: len(stack.pids(SEARCH)) == 1, 60, "the previous search service ends")
        assert stack.pids(SEARCH) == [reload["replaced"]["search"]["now"]] != before
        for asker in askers:
            asker.wait_for_more(10)
            assert asker.failures == []
    finally:
        for asker in askers:
            asker.stopped = True
        for asker in askers:
            if asker.ident is not None:
                asker.join(40)
        stack.stop()
        upstream.stop()
