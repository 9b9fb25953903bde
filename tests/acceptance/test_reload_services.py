"""New code takes over all of an installation that is no model: the search service and the gateway, while people go on
asking about documents and get every answer.
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
KNOWN = {"asked": "sources: [handbook]", "remembered": "sources: [handbook]\ncache: {answers: exact, ttl: 1h}"}


class Asking(threading.Thread):
    """Somebody who asks without pause; `wrong` is every answer that rests on nothing, or is none."""

    def __init__(self, stack: Stack, key: str) -> None:
        super().__init__(daemon=True)
        self.stack, self.key = stack, key
        self.asked, self.wrong, self.over = 0, list[str](), False

    def run(self) -> None:
        while not self.over:
            answer = self.stack.chat(self.key, QUESTION)
            self.asked += 1
            if answer.status != 200 or not answer.body["groundplan"]["sources"]:
                self.wrong.append(f"{answer.status} {answer.body}")
            time.sleep(0.02)

    def more(self, count: int) -> None:
        """Until it has asked so often again."""
        goal = self.asked + count
        wait_until(lambda: self.asked >= goal, 60, "people go on asking")


@pytest.mark.timeout(400)
def test_a_reload_replaces_the_search_service_under_people_who_ask(tmp_path: Path) -> None:
    upstream, workspace = Upstream(tmp_path / "upstream"), tmp_path / "workspace"
    (workspace / "handbook").mkdir(parents=True)
    (workspace / "handbook" / "leave.md").write_text(RULE)
    stack = Stack(tmp_path, workspace)
    upstream.start()
    texts = [WORKLOAD.format(name=name, stage="pilot", owners=OWNERS, more=more) for name, more in KNOWN.items()]
    (workspace / "company.yaml").write_text(WORKSPACE.replace("URL", upstream.url) + "".join(texts))
    people: list[Asking] = []
    try:
        stack.start(120)
        assert stack.control("POST", "/api/knowledge/ingest", {}).status == 200
        people = [Asking(stack, stack.key(name, "--user", "ana@acme.example")) for name in KNOWN]
        for each in people:
            wait_until(
                lambda key=each.key: stack.chat(key, QUESTION).body["groundplan"]["sources"], 60, "it is indexed"
            )
            each.start()
            each.more(5)
        before, workers = stack.pids(SEARCH), stack.pids(GATEWAY)
        told = stack.cli("reload")
        assert told["state"] == "done" and told["replaced"]["search"]["before"] == before[0]
        assert len(told["replaced"]) == 2 + len(workers) and "control" in told["replaced"]
        wait_until(lambda: len(stack.pids(SEARCH)) == 1, 60, "the one before ends")
        assert stack.pids(SEARCH) == [told["replaced"]["search"]["now"]] != before
        for each in people:
            each.more(10)
            assert each.wrong == []
    finally:
        for each in people:
            each.over = True
        for each in people:
            if each.ident is not None:
                each.join(40)
        stack.stop()
        upstream.stop()
