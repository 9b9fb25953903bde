"""How fast guardrails are, and how often they miss or cry wolf.

Time is that of everything a workload may check on one text of about 1 kB that holds personal data, in microseconds of
CPU: personal data, secrets, injection, denied words, links, language. Personal data is measured on a generated labelled
set (`personal_data.py`), beside Presidio's own pattern recognisers where `groundplan[governance]` is installed. An
injection is looked for in a labelled file (JSON lines with `text` and `label`: malicious or benign) and in ordinary
prompts (JSON lines with `turns`), where they are given; neither chose a pattern or a threshold. Languages and a judge
are measured where `--locales` and `--judge` are given (`guardrail_rates.py`).
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import logging
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import guardrail_rates
from benchmarks.personal_data import MAKERS, Labelled, texts
from benchmarks.provenance import commit, machine

from groundplan.core import detect
from groundplan.core.settings import load_settings
from groundplan.governance.guardrails.checks import Checks, deny_pattern
from groundplan.governance.guardrails.injection import injection_signs

Span = tuple[int, int, str]
KIND = {name: name for name in ("card", "iban", "email", "ip", "mac", "phone", "crypto", "secret")}
"""Type of the labelled set -> kind of the detector; all others are `national_id`."""
_NATIONAL = "national_id"
_PRESIDIO = {
    "card": ("CreditCardRecognizer",), "iban": ("IbanRecognizer",), "email": ("EmailRecognizer",),
    "ip": ("IpRecognizer",), "mac": ("MacAddressRecognizer",), "phone": ("PhoneRecognizer",),
    "crypto": ("CryptoRecognizer",),
    "us_ssn": ("UsSsnRecognizer",), "es_nif": ("EsNifRecognizer", "EsNieRecognizer"), "de_tax": ("DeTaxIdRecognizer",),
    "pl_pesel": ("PlPeselRecognizer",), "se_pnr": ("SePersonnummerRecognizer",), "it_cf": ("ItFiscalCodeRecognizer",),
    "uk_nino": ("UkNinoRecognizer",), "uk_nhs": ("NhsRecognizer",), "fi_hetu": ("FiPersonalIdentityCodeRecognizer",),
    "sg_nric": ("SgFinRecognizer",), "in_pan": ("InPanRecognizer",),
}  # fmt: skip


def kind_of(type_: str) -> str:
    return KIND.get(type_, _NATIONAL)


def ours(text: str) -> list[Span]:
    secrets = frozenset(detect.SECRETS)
    return [(f.start, f.end, "secret" if f.kind in secrets else f.kind) for f in detect.find(text)]


def same(a: Span, b: Span) -> bool:
    """The same place, give or take two characters on each side."""
    return abs(a[0] - b[0]) <= 2 and abs(a[1] - b[1]) <= 2 and a[2] == b[2]


def scored(sample: Iterable[Labelled], finder: Callable[[str], list[Span]]) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 by kind, and recall by type."""
    hits: Counter[str] = Counter()
    of_type: Counter[str] = Counter()
    found_of_type: Counter[str] = Counter()
    found_of_kind: Counter[str] = Counter()
    for each in sample:
        gold = [(start, end, kind_of(t), t) for start, end, t in each.spans if t in MAKERS]
        found = finder(each.text)
        found_of_kind.update(kind for _, _, kind in found)
        for start, end, kind, type_ in gold:
            of_type[type_] += 1
            if any(same((start, end, kind), other) for other in found):
                hits[kind] += 1
                found_of_type[type_] += 1
    made: dict[str, dict[str, float]] = {}
    for kind in sorted({kind_of(type_) for type_ in of_type}):
        there = sum(count for type_, count in of_type.items() if kind_of(type_) == kind)
        recall = hits[kind] / there
        precision = min(1.0, hits[kind] / found_of_kind[kind]) if found_of_kind[kind] else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        made[kind] = {"precision": round(precision, 4), "recall": round(recall, 4), "f1": round(f1, 4)}
    for type_ in sorted(of_type):
        if kind_of(type_) == _NATIONAL:
            made.setdefault(f"{_NATIONAL}.{type_}", {})["recall"] = round(found_of_type[type_] / of_type[type_], 4)
    return made


def presidio(least: float) -> Callable[[str], list[Span]] | None:
    """Presidio's pattern recognisers for the types of the set, with a least score; None where it is not installed."""
    if find_spec("presidio_analyzer") is None:
        return None
    logging.getLogger("tldextract").setLevel(logging.CRITICAL)  # it asks for a list of domains, and has one of its own
    library = importlib.import_module("presidio_analyzer.predefined_recognizers")
    loaded = [
        (kind_of(type_), made)
        for type_, names in _PRESIDIO.items()
        for name in names
        if (found := getattr(library, name, None)) is not None
        for made in [found()]
    ]

    def find(text: str) -> list[Span]:
        spans: dict[Span, float] = {}
        for kind, recogniser in loaded:
            for result in recogniser.analyze(text, recogniser.supported_entities, None):
                if result.score >= least:
                    spans[result.start, result.end, kind] = result.score
        return [span for span in spans if not _inside(span, spans)]

    return find


def _inside(span: Span, spans: Iterable[Span]) -> bool:
    """Another find of the same kind is around it."""
    return any(o is not span and o[2] == span[2] and o[0] <= span[0] and span[1] <= o[1] and o != span for o in spans)


def beside_presidio(sample: list[Labelled]) -> dict[str, Any] | None:
    """The best that its recognisers reach on each kind, over several least scores chosen on this very set: in its
    favour."""
    best: dict[str, dict[str, float]] = {}
    for least in (0.0, 0.06, 0.35, 0.55):
        finder = presidio(least)
        if finder is None:
            return None
        for kind, figures in scored(sample, finder).items():
            if "f1" in figures and figures["f1"] >= best.get(kind, {}).get("f1", -1.0):
                best[kind] = {**figures, "least_score": least}
    best.pop("secret", None)
    return best


def timed(rounds: int) -> dict[str, float]:
    """CPU microseconds of all checks on a text of 1 kB, and of personal data and secrets alone."""
    sample = texts(2, seed=11)
    text = " ".join(each.text for each in sample)[:1024]
    plain = (
        "Our pumps are tested for a day before they leave the works, and each one gets a report of its own. " * 11
    )[:1024]
    checks = Checks(
        "input", {"personal_data": "mask", "secrets": "block", "injection": "flag"},
        deny=deny_pattern(["project x", "foo bar"]), links=frozenset({"acme.example"}), languages=frozenset({"en"}),
    )  # fmt: skip
    only = Checks("input", {"personal_data": "mask", "secrets": "block"})

    def median(work: Callable[[], object]) -> float:
        times = []
        for _ in range(rounds):
            begun = time.thread_time_ns()
            work()
            times.append(time.thread_time_ns() - begun)
        return round(statistics.median(times) / 1000, 1)

    return {
        "all_checks_us": median(lambda: checks.find_hits(text)),
        "all_checks_plain_text_us": median(lambda: checks.find_hits(plain)),
        "patterns_us": median(lambda: only.find_hits(text)),
        "patterns_plain_text_us": median(lambda: only.find_hits(plain)),
    }


def injection(labelled: Path | None, ordinary: Path | None) -> dict[str, Any]:
    """Rates of misses on attacks and of false alarms on what only resembles them and on ordinary prompts."""
    found: dict[str, Any] = {}
    if labelled is not None:
        rows = [json.loads(line) for line in labelled.read_text(encoding="utf-8").splitlines() if line.strip()]
        attacks = [row for row in rows if row["label"] == "malicious"]
        benign = [row for row in rows if row["label"] != "malicious"]
        missed = Counter(
            str(row.get("category", "")) for row in attacks if not injection_signs(row["text"]).is_labelled
        )
        alarms = sum(injection_signs(row["text"]).is_labelled for row in benign)
        found |= {
            "attacks": len(attacks),
            "miss_rate": round(sum(missed.values()) / len(attacks), 4),
            "missed_by_category": dict(sorted(missed.items())),
            "benign_lookalikes": len(benign),
            "false_alarm_rate_lookalikes": round(alarms / max(1, len(benign)), 4),
        }
    if ordinary is not None:
        prompts = {turn for row in _lines(ordinary) for turn in row.get("turns", ())}
        alarms = sum(injection_signs(prompt).is_labelled for prompt in prompts)
        found |= {
            "ordinary_prompts": len(prompts),
            "false_alarm_rate_ordinary": round(alarms / max(1, len(prompts)), 4),
        }
    return found


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--count", type=int, default=200, help="texts of each type")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--injections", type=Path, help="labelled attempts as JSON lines")
    parser.add_argument("--prompts", type=Path, help="ordinary prompts as JSON lines with `turns`, .gz or not")
    parser.add_argument("--locales", type=Path, help="translations of programs, such as /usr/share/locale")
    parser.add_argument("--judge", help="OpenAI-compatible address (ending in /v1) of a judge, or `embedded`")
    parser.add_argument("--judge-model", default="", help="its model, or deployment")
    parser.add_argument("--judge-key", type=Path, help="file with its key")
    options = parser.parse_args()
    key = options.judge_key.read_text(encoding="utf-8").strip() if options.judge_key else ""
    sample = texts(options.count, options.seed)
    mine = scored(sample, ours)
    figures: dict[str, Any] = {
        **timed(options.rounds),
        "personal_data": mine,
        "least_f1": min(value["f1"] for value in mine.values() if "f1" in value),
        "presidio": beside_presidio(sample),
        "not_covered_by_patterns": ["person", "address"],
        "injection": injection(options.injections, options.prompts),
        "languages": guardrail_rates.languages(options.locales),
        "judge": guardrail_rates.judge(options.judge, options.judge_model, key, load_settings().models),
        "texts": len(sample),
        "targets": {"all_checks_us": 1000, "least_f1": 0.9},
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),
        "commit": commit(),
    }
    print(json.dumps(figures) if options.json else json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
