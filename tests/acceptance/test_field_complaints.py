"""What users of gateways complain about, each as a test on real processes: budgets that leak or block falsely, costs
that are wrong, streams that break, memory that grows, databases that deadlock, caches that leak, usage that is lost,
agents that call in a loop.

All of it runs on one installation; the last test restarts it.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.field_world import (
    INPUT,
    NORMAL,
    OUTPUT,
    SHAPES,
    SHIPPER,
    WORKER,
    Caller,
    World,
    price,
    reported,
    world,
)
from tests.acceptance.stack import Answer, request, wait_until
from tests.integration.nursery import run_command

MESSAGES = [{"role": "user", "content": "hello"}]
AUDIO = (
    b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nscripted-ear\r\n'
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\ncontent-type: audio/wav\r\n\r\n'
    + bytes(32_000)
    + b"\r\n--b--\r\n"
)
FORM = {"content_type": "multipart/form-data; boundary=b"}
ENDPOINTS: dict[str, tuple[str, Any]] = {
    "chat": ("/v1/chat/completions", {"model": "auto", "messages": MESSAGES, "max_tokens": 20}),
    "chat_stream": ("/v1/chat/completions", {"model": "auto", "messages": MESSAGES, "max_tokens": 20, "stream": True}),
    "messages": ("/v1/messages", {"model": "auto", "messages": MESSAGES, "max_tokens": 20}),
    "messages_stream": ("/v1/messages", {"model": "auto", "messages": MESSAGES, "max_tokens": 20, "stream": True}),
    "responses": ("/v1/responses", {"model": "auto", "input": "hello", "max_output_tokens": 20}),
    "responses_stream": ("/v1/responses", {"model": "auto", "input": "hello", "max_output_tokens": 20, "stream": True}),
    "completions": ("/v1/completions", {"model": "auto", "prompt": "hello", "max_tokens": 20}),
    "embeddings": ("/v1/embeddings", {"model": "auto", "input": "a b c d e f g h i j k l m n o p q r s t u v w x y z"}),
    "moderations": ("/v1/moderations", {"model": "auto", "input": "hello"}),
    "rerank": ("/v1/rerank", {"model": "auto", "query": "q", "documents": ["d"]}),
    "images": ("/v1/images/generations", {"model": "auto", "prompt": "a house", "size": "1024x1024"}),
    "speech": ("/v1/audio/speech", {"model": "auto", "input": "hello", "voice": "alloy"}),
    "transcriptions": ("/v1/audio/transcriptions", AUDIO),
}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("field")) as made:
        yield made


@pytest.fixture
def field(started: World) -> World:
    started.one.control(**NORMAL)
    started.two.control(**NORMAL)
    return started


def together(count: int, ask: Callable[[int], Any]) -> list[Any]:
    """So many at the same moment."""
    gate = threading.Barrier(count)

    def one(number: int) -> Any:
        gate.wait()
        return ask(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def post(field: World, key: str, endpoint: str, **headers: str) -> Answer:
    path, body = ENDPOINTS[endpoint]
    if isinstance(body, bytes):
        headers |= FORM
    return field.post(key, path, body, **headers)


def chat(field: World, key: str, text: str = "hello", **more: Any) -> Answer:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 20, **more}
    return field.post(key, "/v1/chat/completions", body)


def most(field: World, key: str, endpoint: str) -> Decimal:
    """What one such call may cost at most."""
    answer = post(field, key, endpoint, groundplan_estimate="1")
    assert answer.status == 200, answer.body
    return Decimal(answer.body["most_usd"])


# Agents that call in a loop


SAID_S = 150.0
"""Within which the finding is there, the interval of the watch and a busy machine included: minutes, not days."""


@dataclass(frozen=True)
class Agent:
    """One that made every answer part of its next question until its budget had no more room."""

    key: str
    budget: Decimal
    answered: int
    refusal: Answer


@pytest.fixture(scope="module")
def agent(started: World) -> Agent:
    started.one.control(**NORMAL)
    budget = Decimal("0.02")
    key = started.key(budget=budget)
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Reconcile the ledger. " + "step " * 40}]
    for answered in range(500):
        body = {"model": "auto", "messages": messages, "max_tokens": 20}
        reply = started.post(key, "/v1/chat/completions", body, groundplan_feature="reconciler")
        if reply.status != 200:
            return Agent(key, budget, answered, reply)
        messages.append(reply.body["choices"][0]["message"])
        messages.append({"role": "user", "content": "That did not work, try again. " + "detail " * 30})
    pytest.fail("nothing stopped the agent")


def test_an_agent_in_a_loop_is_stopped_by_its_budget(field: World, agent: Agent) -> None:
    error = agent.refusal.body["error"]
    assert agent.answered >= 10 and agent.refusal.status == 429
    assert set(error) >= {"message", "type", "param", "code", "hint"}
    assert error["code"] == "budget_exhausted"
    assert Decimal(error["remaining_usd"]) < Decimal(error["needed_usd"].removeprefix("$"))
    assert chat(field, agent.key, "again " * 1500).status == 429
    assert chat(field, field.key()).status == 200, "the budget of one key stops nobody else"
    assert field.spent(agent.key, agent.answered) <= agent.budget


# Budgets that leak, and budgets that block falsely


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_budget_counts_on_every_endpoint(field: World, endpoint: str) -> None:
    budget = most(field, field.key(), endpoint) * 3
    key, before = field.key(budget=budget), len(field.one.counted())
    answers = together(12, lambda _: post(field, key, endpoint))
    while len(answers) < 200:  # alone: refused only where the budget is used up
        answers.append(post(field, key, endpoint))
        if answers[-1].status != 200:
            break
    served = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status != 200]
    assert {answer.status for answer in refused} == {429}, [answer.body for answer in refused]
    assert len(served) >= 3
    assert len(field.one.counted()) - before == len(served), "what was refused was never sent"
    spent = field.spent(key, len(served))
    assert budget / 2 <= spent <= budget, "each call was charged"


def test_a_batch_is_reserved_whole_before_it_runs(field: World) -> None:
    path, body = ENDPOINTS["chat"]
    one = most(field, field.key(), "chat")
    key, before = field.key(budget=one * 4), len(field.one.counted())
    assert batch(field, key, path, body, 9)["status"] == "failed"
    assert len(field.one.counted()) == before, "no part of a batch that does not fit was sent"
    assert batch(field, key, path, body, 4)["status"] == "completed"
    assert len(field.one.counted()) - before == 4
    assert 0 < field.spent(key, 4) <= one * 4


def batch(field: World, key: str, path: str, body: Any, count: int) -> Any:
    """A batch of so many calls once it has ended."""
    lines = [json.dumps({"custom_id": f"c{n}", "method": "POST", "url": path, "body": body}) for n in range(count)]
    form = (
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        + "\n".join(lines).encode()
        + b"\r\n--b--\r\n"
    )
    file = field.post(key, "/v1/files", form, **FORM)
    assert file.status == 200, file.body
    asked = {"input_file_id": file.body["id"], "endpoint": path, "completion_window": "24h"}
    made = field.post(key, "/v1/batches", asked)
    assert made.status == 200, made.body
    headers = {"authorization": f"Bearer {key}"}

    def ended() -> Any:
        found = request(field.stack.port, "GET", f"/v1/batches/{made.body['id']}", None, headers).body
        return found if found["status"] in ("failed", "completed", "expired", "cancelled") else None

    return wait_until(ended, 60, "the batch ended")


def test_first_requests_at_the_same_moment_do_not_slip_past_a_budget(field: World) -> None:
    field.one.control(**NORMAL, latency_ms=50)
    for kind in ("chat", "chat_stream", "messages", "responses"):
        key, before = field.key(budget=OUTPUT * 20 * 3 + INPUT * 1000), len(field.one.counted())
        answers = together(40, partial(_numbered, field, key, kind))
        served = sum(answer.status == 200 for answer in answers)
        assert 0 < served == len(field.one.counted()) - before
        assert field.spent(key, served) <= OUTPUT * 20 * 3 + INPUT * 1000


def _numbered(field: World, key: str, endpoint: str, _: int) -> Answer:
    return post(field, key, endpoint)


def test_recent_spend_is_not_counted_again_beside_what_is_reserved(field: World) -> None:
    """Answers are much shorter than what is reserved: a budget lets calls pass as long as a whole one still fits."""
    field.one.control(mode="ok", tokens=2)
    one = most(field, field.key(), "chat")
    key = field.key(budget=one * 2)
    answers = [chat(field, key)]
    cost = Decimal(answers[0].headers["groundplan-cost-usd"])
    fitting = int(one / cost) + 1
    answers += [chat(field, key) for _ in range(fitting + 1)]
    statuses = [answer.status for answer in answers]
    assert statuses[:fitting] == [200] * fitting, f"refused after {statuses.index(429)} of {fitting}"
    assert field.spent(key, statuses.count(200)) == cost * statuses.count(200)


PATHS = (
    "/v1/chat/completions/", "//v1/chat/completions", "/V1/chat/completions", "/v1/../v1/chat/completions",
    "/v1%2Fchat%2Fcompletions", "/chat/completions", "/openai/v1/chat/completions", "/passthrough/v1/chat/completions",
    "/openai/deployments/one/chat/completions", "/v1/fine_tuning/jobs", "/v1/assistants", "/v1/threads/runs",
    "/v1/vector_stores", "/v1/realtime", "/v1beta/models/one:generateContent", "/v1/one/chat/completions",
    "/v1/chat/completions;x=1", "/v1/chat/completions%00",
)  # fmt: skip


def test_no_other_path_leads_past_a_budget(field: World) -> None:
    key, before = field.key(budget=INPUT), len(field.one.counted())
    for path in PATHS:
        for method in ("POST", "GET", "PUT"):
            headers = {"authorization": f"Bearer {key}"}
            answer = request(field.stack.port, method, path, ENDPOINTS["chat"][1], headers)
            asked = answer.status == 429 and answer.code == "budget_exhausted"
            listed = method == "GET" and answer.status == 200  # what of their own is stored
            assert answer.status in (400, 404, 405) or asked or listed, (method, path, answer.status)
    queried = field.post(key, "/v1/chat/completions?api-version=1", ENDPOINTS["chat"][1])
    assert (queried.status, queried.code) == (429, "budget_exhausted")
    assert len(field.one.counted()) == before


def test_a_token_limit_is_never_passed_by_what_is_reserved(field: World) -> None:
    """A thousand tokens: whatever comes at the same moment, what was reserved never adds up to more."""
    used = {"prompt_tokens": 80, "completion_tokens": 20, "total_tokens": 100}
    field.one.control(**NORMAL, latency_ms=30, usage=used)
    key = field.key("limited")
    answers = together(40, lambda _: chat(field, key))
    assert {answer.status for answer in answers} == {200, 429}
    assert {answer.code for answer in answers if answer.status == 429} == {"rate_limit_exceeded"}
    quiet = time.monotonic() + 2
    while time.monotonic() < quiet:
        answers.append(chat(field, key))
        if answers[-1].status == 200:
            quiet = time.monotonic() + 2
        else:
            time.sleep(0.1)
    served = [answer for answer in answers if answer.status == 200]
    assert 7 <= len(served) <= 10, "a hundred each"


# Costs that are wrong


@pytest.mark.parametrize("name", SHAPES)
def test_tokens_of_each_class_cost_exactly_their_price(field: World, name: str) -> None:
    shape, key = SHAPES[name], field.key("exact")
    field.one.control(mode="ok", usage=reported(shape))
    asked = partial(chat, field, key, "x" * 12_000, model="scripted-dear", max_tokens=600)
    for answer in (asked(), asked(stream=True)):
        assert answer.status == 200, answer.body
        (attempt,) = field.attempts(answer.headers["groundplan-call-id"])
        assert attempt["cost_usd"] == price(shape)
        assert attempt["cost_usd"] <= attempt["reserved_usd"] and not attempt["estimated"]
        assert shown(field, answer) == [price(shape)] * 2, "the caller and the receipt are told the same"


def shown(field: World, answer: Answer) -> list[Decimal]:
    """What a call cost, as its answer says and as its receipt does."""
    body = answer.body
    if isinstance(body, bytes):
        told = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")][-1]
    else:
        told = body
    receipt = field.control_api("GET", f"/api/calls/{answer.headers['groundplan-call-id']}")
    return [Decimal(told["groundplan"]["cost_usd"]), Decimal(receipt["cost_usd"])]


def test_usage_in_the_words_of_messages_costs_exactly_the_same(field: World) -> None:
    """There, what a cache read and wrote is not part of the input tokens."""
    key = field.key("exact")
    told = {"input_tokens": 34, "output_tokens": 77, "cache_read_input_tokens": 701, "cache_creation_input_tokens": 333}
    field.one.control(mode="ok", tokens=77, usage=told)
    wanted = price({"input": 34, "output": 77, "cache_read": 701, "cache_write": 333})
    body = {"model": "scripted-claude", "max_tokens": 600, "messages": [{"role": "user", "content": "x" * 2000}]}
    answers = [field.post(key, "/v1/messages", {**body, "stream": stream}) for stream in (False, True)]
    for answer in answers:
        assert answer.status == 200, answer.body
        (attempt,) = field.attempts(answer.headers["groundplan-call-id"])
        assert attempt["cost_usd"] == wanted and shown(field, answer) == [wanted] * 2


# Streams


BREAKS = ("cut", "stall_late", "malformed", "no_finish", "error_event", "comments", "empty", "wrong_type", "stall")


@pytest.mark.parametrize("way", BREAKS)
def test_a_fallback_takes_over_whatever_happens_to_a_stream(field: World, way: str) -> None:
    words = " ".join(f"w{n}" for n in range(12))
    field.one.control(mode=way, chunk_ms=2)
    field.two.control(mode="ok")
    before = len(field.two.counted())
    answer = chat(field, field.key("safe"), words, stream=True, max_tokens=60)
    assert answer.status == 200
    assert text_of(answer.body) == f"You asked: {words}", "every word, once"
    assert len(field.two.counted()) == before + 1, "the fallback was asked"
    field.one.control(**NORMAL)
    rested(field)


def text_of(body: bytes) -> str:
    """The text of a whole stream."""
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]", body
    chunks = [json.loads(event) for event in events[:-1]]
    assert not any("error" in chunk for chunk in chunks), body
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def rested(field: World) -> None:
    """Let the first deployment be asked again, so that the next break happens to it, too."""
    key = field.key("safe")

    def first() -> bool:
        before = len(field.one.counted())
        together(6, lambda _: chat(field, key))
        return len(field.one.counted()) == before + 6

    wait_until(first, 60, "the first deployment is asked by every worker")


@pytest.mark.parametrize("rule", ["generated", "full", "drain"])
def test_a_client_that_goes_away_pays_what_was_used_and_no_more(field: World, rule: str) -> None:
    field.one.control(mode="ok", tokens=30, chunk_ms=40 if rule == "drain" else 200)
    call, words = abort(field, field.key(rule))
    (attempt,) = field.attempts(call)
    assert attempt["outcome"] == "cancelled"
    used = attempt["usage"]
    if rule == "drain":
        assert attempt["cost_usd"] == 5 * INPUT + 30 * OUTPUT and not attempt["estimated"]
    elif rule == "full":
        assert attempt["cost_usd"] == attempt["reserved_usd"]
    else:
        assert words <= used["output"] and words * OUTPUT <= attempt["cost_usd"] < attempt["reserved_usd"]


def test_a_reported_usage_of_zero_is_taken_at_its_word(field: World) -> None:
    """Also where the client went away: nothing was used, and nothing is charged in its place."""
    field.one.control(mode="ok", tokens=10, chunk_ms=20, usage=reported({}))
    key = field.key("drain")
    answer = chat(field, key)
    assert (answer.status, float(answer.headers["groundplan-cost-usd"])) == (200, 0)
    streamed = chat(field, key, stream=True).headers["groundplan-call-id"]
    gone, _ = abort(field, key)
    for call in (answer.headers["groundplan-call-id"], streamed, gone):
        (attempt,) = field.attempts(call)
        assert attempt["cost_usd"] == 0 and not attempt["estimated"]
        assert "under_count" in attempt["flags"], "it is told that more was used"


def abort(field: World, key: str) -> tuple[str, int]:
    """Go away in the middle of a stream; the call and how many words had come."""
    connection = http.client.HTTPConnection("127.0.0.1", field.stack.port, timeout=30)
    body = {"model": "auto", "messages": MESSAGES, "max_tokens": 60, "stream": True}
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    data = b""
    while data.count(b'"content":"') < 5:
        data += answer.read1(4096)
    connection.close()
    answer.close()
    return answer.headers["groundplan-call-id"], data.count(b'"content":"') - 1


# Memory, database, cache


def test_memory_is_flat_over_many_calls(field: World) -> None:
    field.one.control(mode="ok")
    key, text = field.key(), "x" * 20_000

    def work(count: int) -> None:
        def one(number: int) -> None:
            with Caller(field.stack.port, key) as caller:
                for n in range(count // 8):
                    assert caller.chat(f"{text} {number} {n}", stream=n % 2 == 0) == 200

        together(8, one)

    work(400)
    before = memory(field)
    work(1600)
    after = memory(field)
    grown = [later - earlier for earlier, later in zip(before, after, strict=True)]
    assert max(grown) < 8 << 20, "1,600 calls of 20 kB, and memory grew by the size of a part of them"


def memory(field: World) -> list[int]:
    """Bytes that each worker has resident."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in sorted(field.stack.pids(WORKER))]
    return [count * os.sysconf("SC_PAGE_SIZE") for count in pages]


def test_counters_of_many_keys_never_deadlock_in_the_database(field: World) -> None:
    """Many budgets that workers lease, give back and ship at the same time, in any order."""
    field.one.control(mode="ok")
    keys = [field.key(budget=INPUT * 3000) for _ in range(8)]

    def one(number: int) -> None:
        with ExitStack() as opened:
            callers = [opened.enter_context(Caller(field.stack.port, key)) for key in keys]
            for n in range(40):
                assert callers[(n * (number + 1)) % len(keys)].chat("hello", stream=n % 3 == 0) in (200, 429)

    together(12, one)
    wait_until(field.settled, 60, "all is in the ledger")
    ((row),) = field.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert row["deadlocks"] == 0
    logs = "".join(path.read_text(errors="replace") for path in (field.stack.home / "logs").glob("*"))
    assert "deadlock detected" not in logs and "database system is ready" in logs
    for key in keys:
        assert field.spent(key, 1) <= INPUT * 3000


def test_a_cached_answer_never_reaches_another_user(field: World) -> None:
    for name in ("ana", "ben"):
        field.control_api("POST", "/api/people", {"email": f"{name}@company.example", "name": name})
    ana, ben = (field.key("cached", user=f"{name}@company.example") for name in ("ana", "ben"))
    nobody = field.key("cached")

    def cached(key: str, text: str, **more: Any) -> str:
        return str(chat(field, key, text, temperature=0, **more).body["groundplan"]["cache"])

    for month in ("May", "June", "July"):
        text = f"What is my salary in {month}?"
        answers = [cached(ana, text) for _ in range(10)]
        assert answers[0] == "none" and "exact" in answers, "to the same person and question it is given again"
        assert [cached(ben, text), cached(nobody, text)] == ["none", "none"], "to nobody else"
        for near in (text.lower(), text[:-1], text + " ", text.replace("my", "his")):
            assert cached(ana, near) == "none", "nor to a question that is only like it"


# Usage that is lost


def test_no_usage_is_lost_when_a_worker_is_killed_in_mid_traffic(field: World) -> None:
    field.one.control(**NORMAL, latency_ms=20, chunk_ms=2)
    key, stop = field.key(), threading.Event()

    def send() -> None:
        while not stop.is_set():
            with suppress(OSError, http.client.HTTPException), Caller(field.stack.port, key) as caller:
                for n in range(20):
                    caller.chat("hello", stream=n % 2 == 0)
            time.sleep(0.02)

    senders = [threading.Thread(target=send) for _ in range(6)]
    for sender in senders:
        sender.start()
    for _ in range(3):
        time.sleep(0.7)
        workers = wait_until(lambda: field.stack.pids(WORKER), 30, "a worker runs")
        os.kill(workers[0], signal.SIGKILL)
    time.sleep(0.7)
    stop.set()
    for sender in senders:
        sender.join()
    wait_until(field.settled, 90, "every attempt that the upstream counted is in the ledger")
    ((row),) = field.sql(
        "SELECT count(*) FILTER (WHERE state = 'crashed') crashed, count(DISTINCT (call_id, number)) alone, count(*) n"
        " FROM attempt"
    )
    assert row["alone"] == row["n"] and row["crashed"] <= 3 * 6, "nothing twice; what was open is told as crashed"


def test_a_queue_that_is_not_emptied_drops_nothing(field: World) -> None:
    """What carries usage to the database stands still: calls go on, and all of it arrives later."""
    field.one.control(mode="ok")
    wait_until(field.settled, 60, "all of before is in the ledger")
    key, shippers, before = field.key(), field.stack.pids(SHIPPER), shown_of(field, "assistant")
    assert shippers
    for pid in shippers:
        os.kill(pid, signal.SIGSTOP)
    try:

        def one(_: int) -> list[int]:
            with Caller(field.stack.port, key) as caller:
                return [caller.chat("hello") for _ in range(150)]

        statuses = [status for found in together(8, one) for status in found]
    finally:
        for pid in shippers:
            os.kill(pid, signal.SIGCONT)
    assert statuses == [200] * 1200
    each = Decimal(chat(field, key).headers["groundplan-cost-usd"])
    assert each > 0 and field.spent(key, 1201) == 1201 * each, "not nothing after a hundred, nor after a thousand"
    wait_until(lambda: shown_of(field, "assistant") == before + 1201 * each, 30, "the cost page says so, too")
    assert field.settled()


def shown_of(field: World, workload: str) -> Decimal:
    """What a workload cost, as the page of its costs says."""
    found = {each["workload"]: each["total_usd"] for each in field.control_api("GET", "/api/cost")["by_workload"]}
    return Decimal(found.get(workload, 0))


def test_an_agent_in_a_loop_is_named(field: World, agent: Agent) -> None:
    """Who, for what, and what it did. Among the last ones: what is unusual is looked for once a minute."""
    keys = field.control_api("GET", "/api/keys")["keys"]
    prefix = next(each["prefix"] for each in keys if agent.key.startswith(each["prefix"]))

    def found() -> Any:
        rows = field.control_api("GET", "/api/cost/anomalies")["anomalies"]
        return next((row for row in rows if row["detail"]["kind"] == "runaway" and prefix in row["message"]), None)

    told = wait_until(found, SAID_S, "the loop is named")
    seen = told["detail"]["loop"]
    assert (told["subject"], told["severity"]) == ("workload/assistant", "high")
    assert (seen["team"], seen["feature"], seen["calls"]) == ("field", "reconciler", agent.answered)
    assert seen["growing"] and seen["last_tokens"] > 2 * seen["first_tokens"] > 0
    assert seen["budget"].startswith("key/") and Decimal(seen["limit_usd"]) == agent.budget
    assert Decimal(seen["cost_usd"]) <= agent.budget
    assert f"(key {prefix}) of team field, feature reconciler, made" in told["message"]
    assert f"its own budget of ${agent.budget}" in told["message"] and "calls a minute" in told["message"]
    assert told["id"] in {each["id"] for each in field.stack.cli("cost", "anomalies")["anomalies"]}
    shown = run_command(("cost", "anomalies", "--home", str(field.stack.home)), os.environ, 60)
    assert f"(key {prefix})" in shown.stdout and "stopped it at" in shown.stdout, shown.stderr
    assert "groundplan keys revoke" in shown.stdout


def budgets(field: World) -> list[tuple[str, Decimal, str]]:
    """Of every key that has one, as the list of keys says."""
    keys = field.control_api("GET", "/api/keys")["keys"]
    found = [(key["id"], key["budget_usd"], key["budget_period"]) for key in keys]
    return sorted((name, Decimal(limit), period) for name, limit, period in found if limit is not None)


def test_a_spent_budget_is_spent_after_a_restart(field: World) -> None:
    """And every budget that was given is there. The last one: it stops and starts the installation."""
    one = most(field, field.key(), "chat")
    key = field.key(budget=one * 2)
    while (answer := chat(field, key)).status == 200:
        pass
    assert answer.code == "budget_exhausted"
    calls = field.sql("SELECT count(*) n FROM call WHERE status = 'ok'")[0]["n"]
    given = budgets(field)
    assert (one * 2, "total") in [(limit, period) for _, limit, period in given]
    field.stack.stop()
    field.stack.start()
    assert budgets(field) == given
    again = chat(field, key)
    assert (again.status, again.code) == (429, "budget_exhausted")
    assert field.sql("SELECT count(*) n FROM call WHERE status = 'ok'")[0]["n"] >= calls
    assert chat(field, field.key(budget=one * 2)).status == 200, "others go on"
