"""Recorded traffic is read as it was recorded and replayed at its times through a real gateway."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from tests.integration.gateway_stack import blueprint, deployment, installation, scripted_upstream, workload

from groundplan.core.errors import Invalid
from groundplan.testing.database import Database
from groundplan.testing.replay import Arrival, read_record, replay
from groundplan.testing.scripted import Script


def test_a_record_is_read_in_the_order_of_arrival(tmp_path: Path) -> None:
    path = tmp_path / "record.csv"
    path.write_text("arrival,prompt_tokens,output_tokens\n5.5,10,2\n4,300,20\n\n9,1,0\n")
    assert read_record(path) == [Arrival(0, 300, 20), Arrival(1.5, 10, 2), Arrival(5, 1, 1)]
    assert read_record(path, most=1) == [Arrival(0, 10, 2)]


def test_a_public_record_with_dates_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "record.csv.gz"
    lines = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,1,9"
    )
    path.write_bytes(gzip.compress(lines.encode()))
    first, second = read_record(path)
    assert (first, second.prompt, second.output) == (Arrival(0, 374, 44), 1, 9)
    assert second.at == pytest.approx(4.314579, abs=1e-5)


def test_a_public_record_of_json_lines_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl.gz"
    lines = '{"timestamp": 3000, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}\n\n'
    path.write_bytes(gzip.compress((lines + lines.replace("3000", "27482")).encode()))
    assert read_record(path) == [Arrival(0, 6758, 500), Arrival(24.482, 6758, 500)]
    assert len(read_record(path, most=1)) == 1
    for wrong, problem in (("[]", "no column"), ('{"timestamp": 1, "input_length": 2}', "output"), ("{", "line 1")):
        path.write_bytes(gzip.compress(wrong.encode()))
        with pytest.raises(Invalid, match=problem):
            read_record(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("arrival,prompt_tokens\n1,2\n", "no column tells the output tokens"),
        ("arrival,prompt_tokens,output_tokens\n1,2,many\n", "line 2"),
        ("arrival,prompt_tokens,output_tokens\n1,2\n", "line 2"),
        ("arrival,prompt_tokens,output_tokens\nyesterday,2,3\n", "line 2"),
        ("", "no column tells the arrival"),
    ],
)
def test_what_is_no_record_is_told(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "record.csv"
    path.write_text(text)
    with pytest.raises(Invalid, match=problem) as caught:
        read_record(path)
    assert caught.value.code == "traffic_record"


async def test_every_call_of_a_record_is_made_with_its_tokens(database: Database, tmp_path: Path) -> None:
    chance = random.Random(3)
    record = [Arrival(n * 0.05, chance.randint(1, 800), chance.randint(1, 60)) for n in range(40)]
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=1000)
        stack.apply(blueprint(1, [deployment("one", port)], [workload("assistant", ["one"])]))
        stack.start()
        await stack.wait_until_ready()
        outcome = await replay(stack.port, stack.key(), record, speed=2)
    told = outcome.told()
    assert told["statuses"] == {"200": 40} and model.counted == 40
    assert told["output_tokens"] == sum(arrival.output for arrival in record)
    overhead = 4 * len(record)  # the scripted model counts four tokens of each message's frame
    assert told["prompt_tokens"] == sum(arrival.prompt for arrival in record) + overhead
    assert outcome.seconds >= record[-1].at / 2
    assert (await replay(port, "", record[:1])).statuses == {0: 1}, "nobody listens any more"
