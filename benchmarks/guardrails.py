"""The speed of guardrails, and their rates of misses and false alarms.

Time is CPU, in microseconds, of everything that a workload may check on one text of about 1 kB with personal data:
personal data, secrets, injection, denied words, links, language. Personal data is measured on a generated labelled set
(`personal_data.py`), also with Presidio's own pattern recognisers if `groundplan[governance]` is installed. Injections
are searched in a labelled file (JSON lines with `text` and `label`: malicious or benign) and in ordinary prompts (JSON
lines with `turns`), if given; no pattern or threshold was chosen on either. Languages and a judge are measured with
`--locales` and `--judge` (`guardrail_rates.py`).
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
from benchmarks.personal_data import GENERATORS, LabelledText, labelled_texts
from benchmarks.provenance import commit, machine

from groundplan.core import detect
from groundplan.core.settings import load_settings
from groundplan.governance.guardrails.checks import Checks, deny_pattern
from groundplan.governance.guardrails.injection import injection_signs

Span = tuple[int, int, str]
KIND_OF_TYPE = {name: name for name in ("card", "iban", "email", "ip", "mac", "phone", "crypto", "secret")}
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
    return KIND_OF_TYPE.get(type_, _NATIONAL)


def detector_spans(text: str) -> list[Span]:
    secrets = frozenset(detect.SECRETS)
    return [(f.start, f.end, "secret" if f.kind in secrets else f.kind) for f in detect.find(text)]


def is_same_span(a: Span, b: Span) -> bool:
    """Whether two spans are of one kind and place, give or take two characters on each side."""
    return abs(a[0] - b[0]) <= 2 and abs(a[1] - b[1]) <= 2 and a[2] == b[2]


def score_by_kind(sample: Iterable[LabelledText], finder: Callable[[str], list[Span]]) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 by kind, and recall by type."""
    hits: Counter[str] = Counter()
    count_of_type: Counter[str] = Counter()
    found_of_type: Counter[str] = Counter()
    found_of_kind: Counter[str] = Counter()
    for labelled in sample:
        gold = [(start, end, kind_of(t), t) for start, end, t in labelled.spans if t in GENERATORS]
        spans = finder(labelled.text)
        found_of_kind.update(kind for _, _, kind in spans)
        for start, end, kind, type_ in gold:
            count_of_type[type_] += 1
            if any(is_same_span((start, end, kind), other) for other in spans):
                hits[kind] += 1
                found_of_type[type_] += 1
    figures: dict[str, dict[str, float]] = {}
    for kind in sorted({kind_of(type_) for type_ in count_of_type}):
        expected = sum(count for type_, count in count_of_type.items() if kind_of(type_) == kind)
        recall = hits[kind] / expected
        precision = min(1.0, hits[kind] / found_of_kind[kind]) if found_of_kind[kind] else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        figures[kind] = {"precision": round(precision, 4), "recall": round(recall, 4), "f1": round(f1, 4)}
    for type_ in sorted(count_of_type):
        if kind_of(type_) == _NATIONAL:
            figures.setdefault(f"{_NATIONAL}.{type_}", {})["recall"] = round(
                found_of_type[type_] / count_of_type[type_], 4
            )
    return figures


def presidio_finder(least_score: float) -> Callable[[str], list[Span]] | None:
    """Presidio's pattern recognisers for the types of the set, from a least score on; None if it is not installed."""
    if find_spec("presidio_analyzer") is None:
        return None
    logging.getLogger("tldextract").setLevel(logging.CRITICAL)  # it logs that it cannot download a list of domains
    library = importlib.import_module("presidio_analyzer.predefined_recognizers")
    loaded = [
        (kind_of(type_), recogniser)
        for type_, names in _PRESIDIO.items()
        for name in names
        if (recogniser_class := getattr(library, name, None)) is not None
        for recogniser in [recogniser_class()]
    ]

    def find(text: str) -> list[Span]:
        spans: dict[Span, float] = {}
        for kind, recogniser in loaded:
            for result in recogniser.analyze(text, recogniser.supported_entities, None):
                if result.score >= least_score:
                    spans[result.start, result.end, kind] = result.score
        return [span for span in spans if not _is_contained(span, spans)]

    return find


def _is_contained(span: Span, spans: Iterable[Span]) -> bool:
    """Whether another span of the same kind contains this one."""
    return any(
        other is not span and other[2] == span[2] and other[0] <= span[0] and span[1] <= other[1] and other != span
        for other in spans
    )


def best_of_presidio(sample: list[LabelledText]) -> dict[str, Any] | None:
    """Presidio's best figures of each kind over several least scores: chosen on this very set, so in its favour."""
    best: dict[str, dict[str, float]] = {}
    for least_score in (0.0, 0.06, 0.35, 0.55):
        finder = presidio_finder(least_score)
        if finder is None:
            return None
        for kind, figures in score_by_kind(sample, finder).items():
            if "f1" in figures and figures["f1"] >= best.get(kind, {}).get("f1", -1.0):
                best[kind] = {**figures, "least_score": least_score}
    best.pop("secret", None)
    return best


def measure_times(rounds: int) -> dict[str, float]:
    """CPU microseconds of all checks on a text of 1 kB, and of personal data and secrets alone."""
    sample = labelled_texts(2, seed=11)
    text = " ".join(labelled.text for labelled in sample)[:1024]
    plain = (
        "Our pumps are tested for a day before they leave the works, and each one gets a report of its own. " * 11
    )[:1024]
    checks = Checks(
        "input", {"personal_data": "mask", "secrets": "block", "injection": "flag"},
        deny=deny_pattern(["project x", "foo bar"]), links=frozenset({"acme.example"}), languages=frozenset({"en"}),
    )  # fmt: skip
    patterns_only = Checks("input", {"personal_data": "mask", "secrets": "block"})

    def median(work: Callable[[], object]) -> float:
        times = []
        for _ in range(rounds):
            started = time.thread_time_ns()
            work()
            times.append(time.thread_time_ns() - started)
        return round(statistics.median(times) / 1000, 1)

    return {
        "all_checks_us": median(lambda: checks.find_hits(text)),
        "all_checks_plain_text_us": median(lambda: checks.find_hits(plain)),
        "patterns_us": median(lambda: patterns_only.find_hits(text)),
        "patterns_plain_text_us": median(lambda: patterns_only.find_hits(plain)),
    }


def injection_rates(labelled: Path | None, ordinary: Path | None) -> dict[str, Any]:
    """Rates of misses on attacks, and of false alarms on lookalikes and on ordinary prompts."""
    rates: dict[str, Any] = {}
    if labelled is not None:
        rows = [json.loads(line) for line in labelled.read_text(encoding="utf-8").splitlines() if line.strip()]
        attacks = [row for row in rows if row["label"] == "malicious"]
        benign = [row for row in rows if row["label"] != "malicious"]
        missed = Counter(
            str(row.get("category", "")) for row in attacks if not injection_signs(row["text"]).is_labelled
        )
        alarms = sum(injection_signs(row["text"]).is_labelled for row in benign)
        rates |= {
            "attacks": len(attacks),
            "miss_rate": round(sum(missed.values()) / len(attacks), 4),
            "missed_by_category": dict(sorted(missed.items())),
            "benign_lookalikes": len(benign),
            "false_alarm_rate_lookalikes": round(alarms / max(1, len(benign)), 4),
        }
    if ordinary is not None:
        prompts = {turn for row in _read_rows(ordinary) for turn in row.get("turns", ())}
        alarms = sum(injection_signs(prompt).is_labelled for prompt in prompts)
        rates |= {
            "ordinary_prompts": len(prompts),
            "false_alarm_rate_ordinary": round(alarms / max(1, len(prompts)), 4),
        }
    return rates


def _read_rows(path: Path) -> Iterable[dict[str, Any]]:
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
    sample = labelled_texts(options.count, options.seed)
    mine = score_by_kind(sample, detector_spans)
    figures: dict[str, Any] = {
        **measure_times(options.rounds),
        "personal_data": mine,
        "least_f1": min(value["f1"] for value in mine.values() if "f1" in value),
        "presidio": best_of_presidio(sample),
        "not_covered_by_patterns": ["person", "address"],
        "injection": injection_rates(options.injections, options.prompts),
        "languages": guardrail_rates.measure_languages(options.locales),
        "judge": guardrail_rates.measure_judge(options.judge, options.judge_model, key, load_settings().models),
        "texts": len(sample),
        "targets": {"all_checks_us": 1000, "least_f1": 0.9},
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),
        "commit": commit(),
    }
    print(json.dumps(figures) if options.json else json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
