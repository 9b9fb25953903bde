"""False alarms and misses of two guardrails that are not exact: which language a text is in, and a judge.

Languages are measured on the messages of translated programs, as gettext's `.mo` files under /usr/share/locale hold
them on most Linux machines: real sentences by people, with their language known. None chose a word or a threshold. A
judge is measured on `judged_answers.py`, by the very call and the reading that the gateway makes of it.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
from benchmarks.judged_answers import judged

from groundplan.blueprint.model import Judge
from groundplan.gateway.guard.judge import is_refused, judge_request
from groundplan.governance.guardrails.language import MIN_LETTERS, MIN_WORDS, disallowed_language

KNOWN = ("de", "en", "es", "fr", "it", "nl", "pl", "pt", "sv")
OTHERS = ("ca", "cs", "da", "fi", "hr", "hu", "nb", "ro", "tr")
"""Languages that the check does not know, half of them near to one that it does."""
SCRIPTS = ("ar", "el", "ja", "ru", "uk", "zh_CN")
"""Languages in other scripts, two of them without spaces between words."""
SAMPLE = 400
JOINED = 5
"""Messages that make a text of the length of an answer."""
_FORMAT = re.compile(r"%[-+ #0]*[\d$*.]*(?:hh|h|ll|l|z)?[a-zA-Z%]|%\([^)]*\)\w|<[^>]*>|\{[^}]*\}|[_\\]|https?://\S+")
_WORD = re.compile(r"[^\W\d_]+")


def messages(file: Path) -> Iterator[tuple[str, str]]:
    """The pairs of an `.mo` file: English and its translation."""
    data = file.read_bytes()
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    count, from_, to = struct.unpack_from(f"{order}3I", data, 8)
    for i in range(count):
        pair = []
        for table in (from_, to):
            length, offset = struct.unpack_from(f"{order}2I", data, table + 8 * i)
            pair.append(data[offset : offset + length].split(b"\x00")[0].decode("utf-8", "replace"))
        if pair[0]:
            yield pair[0], pair[1]


def sentences(folder: Path) -> dict[str, list[str]]:
    """Language -> messages of at least eight words, in a fixed order; English from what was translated."""
    found: dict[str, set[str]] = {}
    for language in (*KNOWN, *OTHERS, *SCRIPTS):
        for file in sorted(folder.glob(f"{language}/LC_MESSAGES/*.mo")):
            for english, translated in messages(file):
                for name, text in (("en", english), (language, translated)):
                    plain = " ".join(_FORMAT.sub(" ", text).split())
                    if english != translated and _is_long(name, plain):
                        found.setdefault(name, set()).add(plain)
    return {language: random.Random(7).sample(sorted(texts), len(texts)) for language, texts in sorted(found.items())}


def _is_long(language: str, text: str) -> bool:
    if language in SCRIPTS:
        return sum(map(len, _WORD.findall(text))) >= 2 * MIN_LETTERS
    return len(_WORD.findall(text)) >= MIN_WORDS


def languages(folder: Path | None) -> dict[str, Any] | None:
    """Rates for a workload that declares one of the nine languages, over each; None where no folder is given.

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
        "answer": _rates({name: list(_joined(texts[:SAMPLE])) for name, texts in by_language.items()}),
    }


def _joined(texts: list[str]) -> Iterable[str]:
    for i in range(0, len(texts) - JOINED + 1, JOINED):
        yield ". ".join(texts[i : i + JOINED])


def _rates(texts: dict[str, list[str]]) -> dict[str, Any]:
    alarms = {name: _refused(texts[name], name) for name in KNOWN}
    known, unknown, scripts = (_missed(texts, spoken) for spoken in (KNOWN, OTHERS, SCRIPTS))
    return {
        "texts": sum(map(len, texts.values())),
        "words": round(
            sum(len(_WORD.findall(t)) for g in texts.values() for t in g) / sum(map(len, texts.values())), 1
        ),
        "false_alarm_rate": round(sum(alarms.values()) / len(alarms), 4),
        "false_alarm_rate_worst": max((round(rate, 4), name) for name, rate in alarms.items()),
        "miss_rate_of_the_nine": round(known, 4),
        "miss_rate_of_others": round(unknown, 4),
        "miss_rate_of_other_scripts": round(scripts, 4),
    }


def _refused(texts: list[str], declared: str) -> float:
    return sum(bool(disallowed_language(text, {declared})) for text in texts) / len(texts)


def _missed(texts: dict[str, list[str]], spoken: Iterable[str]) -> float:
    """The share of texts in another language than the declared one that pass, the same weight for every pair."""
    rates = [
        1 - _refused(texts[language], declared)
        for declared in KNOWN
        for language in spoken
        if language != declared and texts.get(language)
    ]
    return sum(rates) / len(rates)


def judge(url: str | None, model: str, key: str, models: Path) -> dict[str, Any] | None:
    """Rates of a judge behind an OpenAI-compatible address, or of the embedded model where it says `embedded`."""
    if url is None:
        return None
    if url == "embedded":
        from groundplan.runtime.embedded import start  # noqa: PLC0415 -- loads llama.cpp
        from groundplan.runtime.models import SMOLLM2, ensure  # noqa: PLC0415

        server, address = start(ensure(models, SMOLLM2.name) / "model.gguf", "judge")
        return _judged(address, SMOLLM2.name, "judge") if server is not None else None
    return _judged(url, model, key)


def _judged(url: str, model: str, key: str) -> dict[str, Any]:
    set_ = judged()
    found: list[tuple[bool, bool | None]] = []
    with httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=60.0) as client:
        for each in set_:
            reply = client.post(
                f"{url}/chat/completions",
                json=judge_request(Judge(deployment=model, question=each.question), each.answer),
            )
            found.append((each.truth, is_refused(reply.content, "yes") if reply.status_code == 200 else None))
    wrong, right = [v for truth, v in found if truth], [v for truth, v in found if not truth]
    return {
        "model": model,
        "forbidden": len(wrong),
        "allowed": len(right),
        "no_verdict_rate": round((wrong + right).count(None) / len(set_), 4),
        "on_failure_closed": _judge_rates(wrong, right, refused=(True, None)),
        "on_failure_open": _judge_rates(wrong, right, refused=(True,)),
    }


def _judge_rates(
    wrong: list[bool | None], right: list[bool | None], refused: tuple[bool | None, ...]
) -> dict[str, float]:
    """`refused`: the verdicts at which an answer does not pass."""
    passed, stopped = sum(v not in refused for v in wrong), sum(v in refused for v in right)
    return {"miss_rate": round(passed / len(wrong), 4), "false_alarm_rate": round(stopped / len(right), 4)}
