"""The confined child process: what it may not do, and that a hostile document costs one error and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import forked_parsers
from tests import knowledge_files as files

from groundplan.knowledge.parsing.model import Job, Parsed, Refused
from groundplan.knowledge.parsing.sandbox import Sandbox

ESCAPES = {
    "socket": "import socket; socket.socket()",
    "native socket": "import ctypes; raise SystemExit(0 if ctypes.CDLL(None).socket(2, 1, 0) < 0 else 9)",
    "program": "import os; os.execv('/bin/true', ['true'])",
    "child": "import subprocess; subprocess.run(['/bin/true'])",
    "file": "with open(PATH, 'w') as file: file.write('x' * 10)",
    "other file": "open(PATH + 'x', 'w').close()",
    "native file": "import ctypes; raise SystemExit(0 if ctypes.CDLL(None).open(PATH.encode(), 1) < 0 else 9)",
    "remove": "import os; os.unlink(PATH)",
    "memory": "b'x' * (4 << 30)",
}


@pytest.fixture(autouse=True)
def parsers_without_forking() -> Iterator[None]:
    with forked_parsers.without_forking():
        yield


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_parser_can_do_nothing_but_read_and_compute(escape: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("as it was", encoding="utf-8")
    code = (
        f"from groundplan.knowledge.parsing.confine import confine\nPATH = {str(kept)!r}\nassert confine()\n"
        f"try:\n    {ESCAPES[escape]}\nexcept (OSError, MemoryError):\n    raise SystemExit(0)\nraise SystemExit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert kept.read_bytes() == b"as it was"
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(seconds=20) as sandbox:
        yield sandbox


def test_one_bad_document_stops_no_other(sandbox: Sandbox) -> None:
    jobs = [
        Job(key="a.md", data=b"# A\n\nfirst"), Job(key="bomb.xlsx", data=files.zip_bomb()),
        Job(key="b.md", data=b"second"),
        Job(key="macro.docx", data=files.with_macro(files.word_document())), Job(key="latin.txt", data=b"caf\xe9"),
        Job(key="c.pdf", data=files.pdf()), Job(key="d.docx", data=files.word_document()),
    ]  # fmt: skip
    outcomes = dict((job.key, outcome) for job, outcome in sandbox.parse_all(jobs))
    assert list(outcomes) == [job.key for job in jobs]
    refused = {key: one.code for key, one in outcomes.items() if isinstance(one, Refused)}
    assert refused == {"bomb.xlsx": "document_bomb", "macro.docx": "document_macro", "latin.txt": "document_encoding"}
    assert all(one.hint for one in outcomes.values() if isinstance(one, Refused))


def test_a_document_without_end_is_given_up() -> None:
    """A page whose drawing runs on for minutes, between two that are quick."""
    endless = files.pdf([f"line {n}" for n in range(400_000)], table=True)
    jobs = [Job(key="a.md", data=b"one"), Job(key="endless.pdf", data=endless), Job(key="b.md", data=b"two")]
    for seconds in (1.0, 4.0, 16.0):  # a busy machine takes longer to start a parser
        with Sandbox(seconds=seconds, memory_bytes=8 << 30) as sandbox:
            outcomes = [outcome for _, outcome in sandbox.parse_all(jobs)]
        if isinstance(outcomes[0], Parsed) and isinstance(outcomes[2], Parsed):
            break
    assert [type(one) for one in outcomes] == [Parsed, Refused, Parsed]
    assert isinstance(outcomes[1], Refused)
    assert outcomes[1].code == "document_time"


def test_a_document_that_ends_its_parser_costs_one_error() -> None:
    """With memory for small documents only."""
    heavy = b"a,b\n" + b"1,2\n" * 2_000_000
    with Sandbox(seconds=30, memory_bytes=120 << 20) as sandbox:
        outcomes = {job.key: one for job, one in sandbox.parse_all(
            [Job(key="a.md", data=b"one"), Job(key="heavy.csv", data=heavy), Job(key="b.md", data=b"two")]
        )}  # fmt: skip
    assert isinstance(outcomes["heavy.csv"], Refused)
    assert outcomes["heavy.csv"].code in ("document_memory", "document_hostile")
    assert isinstance(outcomes["a.md"], Parsed) and isinstance(outcomes["b.md"], Parsed)
