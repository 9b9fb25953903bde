"""The embedded model as its own process: a real model, asked with the unmodified OpenAI client."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
import pytest
from openai.types.chat import ChatCompletionMessageParam

from groundplan.core.endpoints import Endpoint, lookup
from groundplan.core.home import Home
from groundplan.core.settings import child_environment, load_settings
from groundplan.runtime.models import SMOLLM2, ensure

QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Answer from this passage: Employees get 28 days of paid leave per year."},
    {"role": "user", "content": "How many days of paid leave do employees get?"},
]


class Running:
    """The process, its announcement, and a client for it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "groundplan.runtime.embedded", "--home", str(home.root)], env=child_environment()
        )
        self.endpoint = self._announced()
        self.client = openai.OpenAI(base_url=self.endpoint.url, api_key=self.endpoint.token, max_retries=0)

    def _announced(self) -> Endpoint:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            found = lookup(self.home, "embedded")
            if found is not None:
                return found
            time.sleep(0.05)
        raise AssertionError(f"the model did not come up: {self.process.poll()}")

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    ensure(load_settings().models, SMOLLM2.name)
    home = Home(tmp_path_factory.mktemp("embedded"))
    home.create()
    running = Running(home)
    try:
        yield running
    finally:
        running.close()


def test_it_answers_from_the_passage_the_same_each_time(model: Running) -> None:
    answers = [model.client.chat.completions.create(model="any", messages=QUESTION, max_tokens=24) for _ in range(2)]
    texts = [answer.choices[0].message.content or "" for answer in answers]
    assert "28" in texts[0]
    assert texts[0] == texts[1]
    usage = answers[0].usage
    assert usage is not None
    assert usage.prompt_tokens > 20
    assert 0 < usage.completion_tokens <= 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_stream_says_the_same_and_tells_usage_last(model: Running) -> None:
    whole = model.client.chat.completions.create(model="any", messages=QUESTION, max_tokens=24)
    with model.client.chat.completions.create(
        model="any",
        messages=QUESTION,
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("stop", "length")


def test_output_is_capped_and_too_long_a_prompt_is_refused(model: Running) -> None:
    answer = model.client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": "Count to one hundred."}], max_tokens=5
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].finish_reason == "length"
    with pytest.raises(openai.BadRequestError):
        model.client.chat.completions.create(model="any", messages=[{"role": "user", "content": "word " * 6000}])


def test_only_its_key_opens_it(model: Running) -> None:
    with openai.OpenAI(base_url=model.endpoint.url, api_key="other", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            stranger.chat.completions.create(model="any", messages=[{"role": "user", "content": "Hi"}], max_tokens=1)
    listening = {one.laddr.ip for one in psutil.Process(model.process.pid).net_connections() if one.status == "LISTEN"}
    assert listening == {"127.0.0.1"}


def test_it_is_quiet_when_idle(model: Running) -> None:
    process = psutil.Process(model.process.pid)
    used = []
    for _ in range(5):  # what it did for an earlier question may just be ending
        before = process.cpu_times()
        time.sleep(2)
        after = process.cpu_times()
        used.append((after.user + after.system) - (before.user + before.system))
        if used[-1] < 0.1:
            return
    raise AssertionError(used)


def test_it_stops_at_once_even_while_it_answers(tmp_path: Path) -> None:
    for tries_left in (2, 1, 0):  # a busy machine may keep it from running for seconds
        try:
            stopped_at_once(Home(tmp_path / f"{tries_left}"))
        except subprocess.TimeoutExpired:
            if not tries_left:
                raise
        else:
            return


def stopped_at_once(home: Home) -> None:
    home.create()
    running = Running(home)
    try:
        with running.client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": "Tell me a long story."}], max_tokens=500, stream=True
        ) as stream:
            next(iter(stream))
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(5) == 0
        assert lookup(home, "embedded") is None
    finally:
        running.close()


def test_without_a_model_it_says_why(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("not a folder")
    done = subprocess.run(
        [sys.executable, "-m", "groundplan.runtime.embedded", "--home", str(tmp_path / "home")],
        env=child_environment({"GROUNDPLAN_MODELS": str(tmp_path / "models")}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 69
    assert "[model_store]" in done.stderr
