"""False alarms and misses of two guardrails that are not exact: the language of a text, and a judge.

Languages are measured on the messages of translated programs, from gettext's `.mo` files under /usr/share/locale on
most Linux machines: real sentences by people, in a known language. No word or threshold was chosen on them. A judge is
measured on `judged_answers.py`, with the gateway's own request and reading of the verdict.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
from benchmarks.judged_answers import labelled_answers

from groundplan.blueprint.model import Judge
from groundplan.gateway.guard.judge import is_refused, judge_request
from groundplan.governance.guardrails.language import MIN_LETTERS, MIN_WORDS, disallowed_language

KNOWN = ("de", "en", "es", "fr", "it", "nl", "pl", "pt", "sv")
OTHERS = ("ca", "cs", "da", "fi", "hr", "hu", "nb", "ro", "tr")
"""Languages that the check does not know, half of them closely related to one that it knows."""
SCRIPTS = ("ar", "el", "ja", "ru", "uk", "zh_CN")
"""Languages in other scripts, two of them without spaces between words."""
SAMPLE = 400
JOINED = 5
"""Messages joined into a text of the length of an answer."""
_FORMAT = re.compile(r"%[-+ #0]*[\d$*.]*(?:hh|h|ll|l|z)?[a-zA-Z%]|%\([^)]*\)\w|<[^>]*>|\{[^}]*\}|[_\\]|https?://\S+")
_WORD = re.compile(r"[^\W\d_]+")


def messages(file: Path) -> Iterator[tuple[str, str]]:
    """(English, translation) of each message of an `.mo` file."""
    data = file.read_bytes()
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    count, originals, translations = struct.unpack_from(f"{order}3I", data, 8)
    for i in range(count):
        texts = []
        for table in (originals, translations):
            length, offset = struct.unpack_from(f"{order}2I", data, table + 8 * i)
            texts.append(data[offset : offset + length].split(b"\x00")[0].decode("utf-8", "replace"))
        if texts[0]:
            yield texts[0], texts[1]


def sentences(folder: Path) -> dict[str, list[str]]:
    """Language -> messages of at least eight words, in a fixed order; English are the originals of the translations."""
    texts_by_language: dict[str, set[str]] = {}
    for language in (*KNOWN, *OTHERS, *SCRIPTS):
        for file in sorted(folder.glob(f"{language}/LC_MESSAGES/*.mo")):
            for english, translated in messages(file):
                for name, text in (("en", english), (language, translated)):
                    sentence = " ".join(_FORMAT.sub(" ", text).split())
                    if english != translated and _is_long(name, sentence):
                        texts_by_language.setdefault(name, set()).add(sentence)
    return {
        language: random.Random(7).sample(sorted(texts), len(texts))
        for language, texts in sorted(texts_by_language.items())
    }


def _is_long(language: str, text: str) -> bool:
    if language in SCRIPTS:
        return sum(map(len, _WORD.findall(text))) >= 2 * MIN_LETTERS
    return len(_WORD.findall(text)) >= MIN_WORDS


def measure_languages(folder: Path | None) -> dict[str, Any] | None:
    """Rates for a workload that declares one of the nine languages, over each of them; None without a folder.

    A false alarm refuses a text of the declared language, a miss lets one of another language pass.
    """
    if folder is None:
        return None
    by_language = sentences(folder)
    missing = [language for language in KNOWN if len(by_language.get(language, ())) < 50]
    if missing:
        return {"absent": f"{folder} has too few messages in {', '.join(missing)}"}
    return {
        "sentence": _rates({name: texts[:SAMPLE] for name, texts in by_language.items()}),
        "answer": _rates({name: list(_join_messages(texts[:SAMPLE])) for name, texts in by_language.items()}),
    }


def _join_messages(texts: list[str]) -> Iterable[str]:
    for i in range(0, len(texts) - JOINED + 1, JOINED):
        yield ". ".join(texts[i : i + JOINED])


def _rates(texts: dict[str, list[str]]) -> dict[str, Any]:
    alarms = {name: _refusal_rate(texts[name], name) for name in KNOWN}
    known, unknown, scripts = (_miss_rate(texts, spoken) for spoken in (KNOWN, OTHERS, SCRIPTS))
    return {
        "texts": sum(map(len, texts.values())),
        "words": round(
            sum(len(_WORD.findall(text)) for group in texts.values() for text in group) / sum(map(len, texts.values())),
            1,
        ),
        "false_alarm_rate": round(sum(alarms.values()) / len(alarms), 4),
        "false_alarm_rate_worst": max((round(rate, 4), name) for name, rate in alarms.items()),
        "miss_rate_of_the_nine": round(known, 4),
        "miss_rate_of_others": round(unknown, 4),
        "miss_rate_of_other_scripts": round(scripts, 4),
    }


def _refusal_rate(texts: list[str], declared: str) -> float:
    return sum(bool(disallowed_language(text, {declared})) for text in texts) / len(texts)


def _miss_rate(texts: dict[str, list[str]], spoken: Iterable[str]) -> float:
    """The share of texts in another language than the declared one that pass; every pair has the same weight."""
    rates = [
        1 - _refusal_rate(texts[language], declared)
        for declared in KNOWN
        for language in spoken
        if language != declared and texts.get(language)
    ]
    return sum(rates) / len(rates)


def measure_judge(url: str | None, model: str, key: str, models: Path) -> dict[str, Any] | None:
    """Rates of a judge behind an OpenAI-compatible address, or of the embedded model if `url` is `embedded`."""
    if url is None:
        return None
    if url == "embedded":
        from groundplan.runtime.embedded import start  # noqa: PLC0415 -- loads llama.cpp
        from groundplan.runtime.models import SMOLLM2, ensure  # noqa: PLC0415

        server, address = start(ensure(models, SMOLLM2.name) / "model.gguf", "judge")
        return _measure_judge(address, SMOLLM2.name, "judge") if server is not None else None
    return _measure_judge(url, model, key)


def _measure_judge(url: str, model: str, key: str) -> dict[str, Any]:
    answers = labelled_answers()
    verdicts: list[tuple[bool, bool | None]] = []
    with httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=60.0) as client:
        for answer in answers:
            reply = client.post(
                f"{url}/chat/completions",
                json=judge_request(Judge(deployment=model, question=answer.question), answer.answer),
            )
            verdicts.append((answer.truth, is_refused(reply.content, "yes") if reply.status_code == 200 else None))
    forbidden, allowed = [v for truth, v in verdicts if truth], [v for truth, v in verdicts if not truth]
    return {
        "model": model,
        "forbidden": len(forbidden),
        "allowed": len(allowed),
        "no_verdict_rate": round((forbidden + allowed).count(None) / len(answers), 4),
        "on_failure_closed": _judge_rates(forbidden, allowed, refused=(True, None)),
        "on_failure_open": _judge_rates(forbidden, allowed, refused=(True,)),
    }


def _judge_rates(
    forbidden: list[bool | None], allowed: list[bool | None], refused: tuple[bool | None, ...]
) -> dict[str, float]:
    """`refused`: the verdicts at which an answer does not pass."""
    passed, stopped = (
        sum(verdict not in refused for verdict in forbidden),
        sum(verdict in refused for verdict in allowed),
    )
    return {"miss_rate": round(passed / len(forbidden), 4), "false_alarm_rate": round(stopped / len(allowed), 4)}
