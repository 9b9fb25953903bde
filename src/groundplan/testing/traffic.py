"""Demo traffic: the example company's people ask their questions through the real gateway, slowly, for ever.

Run by `up --demo` as `python -m groundplan.testing.traffic --home HOME`. It makes its keys with the operator's token,
like any user, and sends through the OpenAI API. It never invents figures: what the console shows comes from these real
calls. Not a load generator.

With `--replay FILE.csv --workload NAME` it replays recorded traffic once instead (`replay`), and prints what became of
it as one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import time
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from groundplan.core.home import Home
from groundplan.testing.replay import read_record, replay

QUESTIONS: dict[str, tuple[str, ...]] = {
    "staff-assistant": (
        "How many days of annual leave do I have?",
        "Who approves a trip abroad?",
        "How do I report a lost laptop?",
        "May I work from another country for a month?",
        "What does the parental leave policy say?",
    ),
    "support-assistant": (
        "My order arrived damaged, what now?",
        "How long does a refund take?",
        "Can I change the delivery address?",
    ),
    "finance-analytics": ("Summarise the open receivables by age.", "Which cost centre is over plan this month?"),
    "handbook-answers": ("How many days of parental leave do we get?",),
}
QUIET = frozenset({"budget-check"})
"""Left alone: its small budget is for the visitor who races it."""
PEOPLE_EACH = 4
WEIGHTS = {"staff-assistant": 10.0, "support-assistant": 6.0, "finance-analytics": 2.0, "handbook-answers": 0.15}
PAUSE_SECONDS = 0.6
RETRY_SECONDS = 2.0
PATIENCE_SECONDS = 20.0
LOOK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Caller:
    """A key of one person for one workload."""

    workload: str
    key: str


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Demo traffic through the gateway of HOME.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--replay", type=Path, metavar="FILE.csv", help="recorded traffic; also .csv.gz")
    parser.add_argument("--workload", help="that is called by the replay")
    parser.add_argument("--speed", type=float, default=1.0, help="so many times as fast as recorded")
    parser.add_argument("--most", type=int, help="calls of the record to replay")
    options = parser.parse_args(arguments)
    if options.replay is not None:
        if not options.workload or options.speed <= 0:
            parser.error("--replay needs --workload, and a --speed above 0")
        print(json.dumps(replay_once(Home(options.home), options)))
        return
    chance = random.Random(options.seed)
    home = Home(options.home)
    while True:
        try:
            talk(home, chance)
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            time.sleep(RETRY_SECONDS)  # `up` is starting, restarting or stopping


def replay_once(home: Home, options: argparse.Namespace) -> dict[str, Any]:
    """Replay a record through the gateway of HOME with a key of its own."""
    record = read_record(options.replay, options.most)
    up = json.loads((home.run / "up.json").read_text())
    token = home.operator_token.read_text().strip()
    made = exchange(port_of(up["control"]), "POST", "/api/keys", token, {"workload": options.workload})
    time.sleep(1.0)  # a worker takes new keys up within this
    return asyncio.run(replay(port_of(up["gateway"]), made["key"], record, options.speed)).told()


def talk(home: Home, chance: random.Random) -> None:
    """Ask one question after the other until something breaks; workloads that are served later join in."""
    up = json.loads((home.run / "up.json").read_text())
    gateway, control = port_of(up["gateway"]), port_of(up["control"])
    token = home.operator_token.read_text().strip()
    callers: list[Caller] = []
    look_again = 0.0
    while True:
        if time.monotonic() >= look_again:
            callers += make_keys(control, token, known={caller.workload for caller in callers})
            look_again = time.monotonic() + LOOK_SECONDS
        if callers:
            caller = chance.choices(callers, [WEIGHTS.get(caller.workload, 1.0) for caller in callers])[0]
            question = chance.choice(QUESTIONS.get(caller.workload, ("What can you help me with?",)))
            ask(gateway, caller, question, stream=chance.random() < 0.3)
        time.sleep(PAUSE_SECONDS * chance.uniform(0.3, 1.7))


def make_keys(control: int, token: str, known: Container[str] = ()) -> list[Caller]:
    """Keys of a few people for each workload that is served and not `known`."""
    served = [row["name"] for row in exchange(control, "GET", "/api/workloads", token)["workloads"] if row["served"]]
    wanted = [name for name in served if name not in QUIET and name not in known]
    if not wanted:
        return []
    people = [person["email"] for person in exchange(control, "GET", "/api/people", token)["people"]]
    callers = []
    for workload in wanted:
        for person in people[served.index(workload) :: len(served)][:PEOPLE_EACH] or [None]:
            body = {"workload": workload, **({} if person is None else {"user": person})}
            callers.append(Caller(workload, exchange(control, "POST", "/api/keys", token, body)["key"]))
    return callers


def ask(gateway: int, caller: Caller, question: str, *, stream: bool) -> int:
    """One question; returns the HTTP status, 0 where the asker gave up: an answer may wait for a reviewer for long.
    Refusals are part of life and do not stop the traffic."""
    body = {"model": "auto", "stream": stream, "max_tokens": 60, "messages": [{"role": "user", "content": question}]}
    connection = http.client.HTTPConnection("127.0.0.1", gateway, timeout=PATIENCE_SECONDS)
    try:
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body),
            {"authorization": f"Bearer {caller.key}", "content-type": "application/json"},
        )
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except TimeoutError:
        return 0
    finally:
        connection.close()


def exchange(control: int, method: str, path: str, token: str, body: dict[str, Any] | None = None) -> Any:
    """One call of the control API; raises ValueError on a refusal."""
    connection = http.client.HTTPConnection("127.0.0.1", control, timeout=30)
    try:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        data = json.loads(answer.read() or b"null")
        if answer.status >= 400:
            raise ValueError(f"{path}: {data}")
        return data
    finally:
        connection.close()


def port_of(url: str) -> int:
    port = urlsplit(url).port
    if port is None:
        raise ValueError(f"{url} has no port")
    return port


if __name__ == "__main__":
    main()
