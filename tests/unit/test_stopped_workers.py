"""Counters of a slot go on when its worker is replaced, killed or gone, exactly, and never go backwards."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_metrics import parse_metrics, total

from groundplan.core.endpoints import announce
from groundplan.core.home import Home
from groundplan.core.money import PICO
from groundplan.gateway.telemetry import scrape, stopped_workers
from groundplan.gateway.telemetry.call_counters import Histogram
from groundplan.gateway.telemetry.exposition import Family, Sample, histogram_family, single_sample
from groundplan.gateway.telemetry.scrape import MetricsScraper


class Counting:
    """What a worker has counted."""

    def __init__(self) -> None:
        self.calls = 0
        self.cost = 0
        self.times = Histogram()

    def call(self, cost: int = 0) -> None:
        self.calls += 1
        self.cost += cost
        self.times.observe(2_000)

    def told(self) -> list[Family]:
        return [
            Family("calls_total", "counter", "C.", [Sample([("status", "ok")], self.calls)]),
            Family("cost_usd_total", "counter", "U.", [Sample([("workload", "a")], self.cost / PICO)]),
            histogram_family("seconds", "S.", {(): self.times}),
            single_sample("running", "gauge", "R.", 1),
            single_sample("process_cpu_seconds_total", "counter", "P.", 1.5),
        ]

    async def own(self) -> list[Family]:
        return self.told()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


def value(families: list[Family], name: str) -> float:
    return sum(sample.value for family in families if family.name == name for sample in family.samples)


def whole(families: list[Family], left: list[stopped_workers.Counted]) -> list[Family]:
    before = {each.name: each for each in left}
    told = [stopped_workers.continue_family(family, before.pop(family.name, None)) for family in families]
    return [*told, *map(stopped_workers.to_family, before.values())]


@given(st.lists(st.tuples(st.sampled_from(["call", "next", "fold"]), st.integers(0, 10**17)), max_size=20))
def test_sums_are_exact_whichever_worker_counts_and_whenever_files_are_folded(steps: list[tuple[str, int]]) -> None:
    """The order of sums makes no difference, so that nothing ever goes back by the last digit either."""
    gone: list[stopped_workers.Counted] = []
    worker, cost, last = Counting(), 0, 0.0
    for step, amount in steps:
        if step == "call":
            worker.call(amount)
            cost += amount
        elif step == "next":
            gone = stopped_workers.merge(stopped_workers.continued_counts(worker.told()), gone)
            worker = Counting()
        else:
            gone = stopped_workers.merge(gone, [])
        now = value(whole(worker.told(), gone), "cost_usd_total")
        assert now >= last
        last = now
    assert last == pytest.approx(cost / PICO)


def test_only_counters_are_kept_and_files_of_the_dead_are_folded_once(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Counting(), Counting()
    one.call(3)
    two.call(4)
    two.call(5)
    stopped_workers.write(home, 0, "0" * 16, one.told())
    stopped_workers.write(home, 0, "1" * 16, two.told())
    stopped_workers.write(home, 1, "2" * 16, one.told())
    stopped_workers.fold(home, 0)
    assert len(stopped_workers._files(home)) == 3, "they live"
    monkeypatch.setattr(stopped_workers, "is_alive", lambda pid: pid != os.getpid())
    before = stopped_workers.read(home, ())
    with monkeypatch.context() as dies:
        dies.setattr(Path, "unlink", lambda *_, **__: None)  # killed before the files are away
        stopped_workers.fold(home, 0)
    assert stopped_workers.read(home, ()) == before
    stopped_workers.fold(home, 0)
    assert stopped_workers.read(home, ()) == before
    assert [(slot, id) for slot, id, _ in stopped_workers._files(home)] == [("1", "2" * 16), ("0", "base")]
    families = whole([], stopped_workers.read(home, ["2" * 16])["0"])
    assert {family.name for family in families} == {"calls_total", "cost_usd_total", "seconds"}
    assert value(families, "calls_total") == 3 and value(families, "cost_usd_total") == 12 / PICO
    assert families[2].series[0].total_us == 6_000 and sum(families[2].series[0].buckets) == 3


def test_a_file_whose_pid_was_reused_is_folded_once_it_is_old(home: Home) -> None:
    one, two = Counting(), Counting()
    one.call(3)
    two.call(4)
    for id, counting in (("0" * 16, one), ("1" * 16, two)):
        stopped_workers.write(home, 0, id, counting.told())
        file = home.run / f"counters.d/0-{id}.msgpack"
        old = file.stat().st_mtime - stopped_workers.STALE_SECONDS - 60
        os.utime(file, (old, old))
    stopped_workers.fold(home, 0, serving="1" * 16)
    assert [id for _, id, _ in stopped_workers._files(home)] == ["1" * 16, "base"], (
        "those announced may be asked seldom"
    )
    assert value(whole([], stopped_workers.read(home, ())["0"]), "cost_usd_total") == 7 / PICO


def test_a_file_folded_while_being_read_is_not_missed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Counting()
    one.call(3)
    stopped_workers.write(home, 0, "0" * 16, one.told())
    monkeypatch.setattr(stopped_workers, "is_alive", lambda _: False)
    listed, looks = stopped_workers._files, iter((True,))

    def files(*asked: Any) -> Any:
        found = listed(*asked)
        if next(looks, False):
            stopped_workers.fold(home, 0)  # there was no sum yet
        return found

    monkeypatch.setattr(stopped_workers, "_files", files)
    assert value(whole([], stopped_workers.read(home, ())["0"]), "calls_total") == 1


async def test_a_scrape_includes_a_replaced_worker_until_its_end(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "WATCH_SECONDS", 0.01)
    old, new = Counting(), Counting()
    leaving, serving = MetricsScraper(home, 0, None), MetricsScraper(home, 0, None)

    async def told(by: MetricsScraper, counting: Counting) -> float:
        found = parse_metrics(await by.render_all(counting.told()))
        assert found["process_cpu_seconds_total"] == {(("worker", "0"),): 1.5}, "it is of the process that tells"
        assert found["running"] == {(("worker", "0"),): 1}
        return total(found["calls_total"])

    async def until(by: MetricsScraper, counting: Counting, wanted: int) -> None:
        async with asyncio.timeout(60):
            while await told(by, counting) != wanted:  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.005)

    await leaving.open(old.own)
    old.call()
    assert await told(leaving, old) == 1
    await serving.open(new.own)
    new.call()
    assert await told(serving, new) == 2, "what was told before is not taken back"
    old.call()  # it still answers a stream
    await until(serving, new, 3)
    old.call()
    await leaving.close()
    assert await told(serving, new) == 4
    await serving.close()
    another, other = Counting(), MetricsScraper(home, 1, None)
    await other.open(another.own)
    found = parse_metrics(await other.render_all(another.told()))
    assert total(found["calls_total"], worker="0") == 4, "nobody has this place any more"
    assert found["groundplan_gateway_worker_up"] == {(("worker", "1"),): 1}
    await other.close()


async def test_a_worker_whose_successor_is_gone_is_scraped_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "WATCH_SECONDS", 0.01)
    counting = Counting()
    first, failed = MetricsScraper(home, 0, None), MetricsScraper(home, 0, None)
    await first.open(counting.own)
    await failed.open(counting.own)
    await failed.close()
    async with asyncio.timeout(60):
        while scrape.announced_names(home) != ["0"]:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.005)
    await first.close()
    assert scrape.announced_names(home) == []


async def test_counters_of_a_killed_worker_never_decrease(home: Home) -> None:
    asking, answering = Counting(), Counting()
    one, two = MetricsScraper(home, 0, None), MetricsScraper(home, 1, None)
    await one.open(asking.own)
    await two.open(answering.own)
    answering.call()
    for up in (1, 0):
        found = parse_metrics(await one.render_all(asking.told()))
        assert found["groundplan_gateway_worker_up"] == {(("worker", "0"),): 1, (("worker", "1"),): up}
        assert total(found["calls_total"], worker="1") == 1
        two._listener.close()
        await two._server.drain(0.1)
    await one.close()
    await two.close()


async def test_a_killed_worker_is_not_missed_if_fewer_should_run(home: Home) -> None:
    """An installation that was killed with all its workers and is started again with fewer."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    for name in ("1", "2"):
        announce(home, f"{scrape.SERVICE}{name}", "http://127.0.0.1:9", "t")
        path = home.run / "endpoints.d" / f"{scrape.SERVICE}{name}.json"
        path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', f'"pid": {gone.pid}'))
    for workers, missed in ((0, {"1", "2"}), (3, {"1", "2"}), (2, {"1"}), (1, set[str]())):
        counting, scrapes = Counting(), MetricsScraper(home, 0, None, workers)
        await scrapes.open(counting.own)
        found = parse_metrics(await scrapes.render_all(counting.told()))["groundplan_gateway_worker_up"]
        assert {dict(labels)["worker"] for labels, up in found.items() if not up} == missed, workers
        await scrapes.close()


async def test_counters_are_written_again_after_a_lack_of_threads(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended for good there, so that a worker that was replaced later took with it what it had counted."""
    one = Counting()
    one.call(3)
    scrapes = scrape.MetricsScraper(home, 0, None)
    with monkeypatch.context() as short:

        async def to_thread(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        short.setattr(asyncio, "to_thread", to_thread)
        await scrapes._write(one.told())
    assert stopped_workers._files(home) == []
    await scrapes._write(one.told())
    assert [slot for slot, _, _ in stopped_workers._files(home)] == ["0"]


async def test_histograms_with_other_bounds_are_left_out_after_an_upgrade(home: Home) -> None:
    """They cannot be added: a worker of the version before may have left them, or tell them while it ends."""
    own, earlier = Counting(), Counting()
    own.call()
    earlier.call()
    earlier.times.buckets = earlier.times.buckets[:-2]
    stopped_workers._write(home, "0", "a" * 16, stopped_workers.Kept(os.getpid(), earlier.told()))
    summed = stopped_workers.continued_counts(earlier.told())
    stopped_workers._write(home, "0", "base", stopped_workers.Kept(0, [], summed, ["b" * 16]))
    serving, sibling = MetricsScraper(home, 0, None), MetricsScraper(home, 1, None)
    await sibling.open(earlier.own)
    await serving.open(own.own)
    try:
        found = parse_metrics(await serving.render_all(own.told()))
    finally:
        await serving.close()
        await sibling.close()
    assert found["calls_total"] == {(("status", "ok"), ("worker", "0")): 3, (("status", "ok"), ("worker", "1")): 1}
    assert found["seconds_count"] == {(("worker", "0"),): 1}
