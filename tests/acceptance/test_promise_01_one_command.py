"""Promise 1: one command ends with a real model answering a governed call, its passage, its cost and its proof."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import openai
import pytest

from tests.acceptance.stack import free_port

ROOT = Path(__file__).parents[2]


def run_as_printed(command: str) -> str:
    """The output of a command that was printed for people to copy, run in the folder in which `up` was started."""
    program, *arguments = shlex.split(command)
    interpreter = [sys.executable, "-m", "groundplan.cli.main"] if program.endswith("groundplan") else [program]
    completed = subprocess.run([*interpreter, *arguments], capture_output=True, text=True, timeout=60, check=True)
    return completed.stdout


@pytest.mark.timeout(300)
def test_the_tour_asks_a_real_model_and_shows_the_proof(tmp_path: Path) -> None:
    port, control = free_port(), free_port()
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "groundplan.cli.main", "up", "--workspace", str(ROOT / "examples/company")),
                *("--home", str(tmp_path / "home"), "--port", str(port), "--control-port", str(control)),
                *("--demo", "--tour"),
            ],
            stdout=stdout,
            stderr=stderr,
            env=dict(os.environ),
        )
    try:
        end = time.monotonic() + 240
        while "OPENAI_API_KEY" not in err.read_text():
            assert process.poll() is None, err.read_text()[-3000:]
            assert time.monotonic() < end, err.read_text()[-3000:]
            time.sleep(0.2)
        output = err.read_text()
        assert out.read_text() == f"ready gateway=http://127.0.0.1:{port}/v1 control=http://127.0.0.1:{control}\n"
        assert "120 days" in output.partition("gets:")[2].partition("from handbook/")[0], "the answer of the real model"
        assert "from handbook/parental-leave.md, lines " in output
        assert "| Each parent gets 120 days of paid parental leave" in output, "the passage that it is based on"
        assert "smollm2-135m" in output.lower()
        assert "rack-1" in output
        assert re.search(r"cost +\$0\.\d{2,12} of .* in \d+\.\d s", output)
        assert re.search(r"audit +entry \d+, verified: \d+ hash", output)
        assert f"http://localhost:{control}/login/" in output
        renewed = run_as_printed(output.partition("within ten minutes; `")[2].partition("`")[0])
        assert f"http://localhost:{control}/login/" in renewed
        words = output.split()
        key = next(word.split("=", 1)[1] for word in words if word.startswith("OPENAI_API_KEY="))
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key)
        answer = client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "How many days of parental leave do we get?"}]
        )
        assert answer.choices[0].message.content
        assert answer.usage is not None and answer.usage.completion_tokens > 0
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
