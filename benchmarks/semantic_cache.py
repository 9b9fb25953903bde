"""The share of true repeats that the semantic cache answers, and of wrong answers, on pairs it was not tuned on.

    python benchmarks/semantic_cache.py PAIRS.jsonl --json           any {"a", "b", "same"[, "kind", "group"]}
    python benchmarks/semantic_cache.py --generated SEEDS --json     pairs of intents that no setting comes from
    python benchmarks/semantic_cache.py --public GPTCACHE.json.gz --json    the public pairs, which set the threshold
    python benchmarks/semantic_cache.py --tune GPTCACHE.json.gz      learn acceptance.json anew (development pairs only)
    python benchmarks/semantic_cache.py --kinds                      learn only its kinds of difference anew

A pair is a hit if both questions would get one answer once the workload has proven itself: the pair matches, and there
is evidence of each kind of its difference (`differences`); or a guard refuses it, and there is evidence of the two ways
in which it is put (`ways`). Texts are embedded as questions are on this machine, those of training in float32. The
evidence is learned as a workload's checks teach it, from pairs of other intents: from four fifths of them for each
fifth, added to the shipped evidence; a kind that they show to be wrong is off. So no figure of a pair comes from its
own intent. `as_shipped` are the figures with the shipped evidence alone, as on the first day; `matches` those without
any evidence: what a workload checks before it serves.

`hit_rate` is the share of true repeats that hit, `wrong_rate` the share of all hits that are wrong, `wrong_upper` its
95 % bound. Hits of one intent are not independent, so for the bound each intent with hits counts once, with the share
of its hits that are wrong (Clopper-Pearson, that sum rounded up): as if all hits of an intent were one.
`wrong_upper_independent` counts each hit. In a file an intent is a `group`, or else all pairs that shared texts
connect. The kind of a trap is that of the file, or else the guard that refused it. `read_ms` and `judge_ms` are CPU: to
read a question, and to compare it with another one (the mean of all pairs, refused ones included).

`--alone` also measures similarity of the embedding alone, with the threshold that would have been best in hindsight.
Needs the embedding model on this machine; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from math import ceil, inf
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import semantic_families, semantic_pairs, semantic_put, semantic_tune
from benchmarks.provenance import commit, machine
from benchmarks.semantic_labelled import Pair, read_pairs
from benchmarks.semantic_public import INSERTED, REPORTED_APART, SORT, TextEmbeddings, read_public_pairs

from groundplan.core.errors import GroundplanError
from groundplan.economics.semantic import equivalence
from groundplan.economics.semantic.equivalence import Acceptance, Verdict
from groundplan.economics.semantic.phrasing import read_question
from groundplan.economics.semantic.similarity import cosine
from groundplan.gateway.caching.semantic import MAX_QUESTION_CHARS

FOLDS = 5
SUMMARY_FIGURES = ("hits", "wrong", "hit_rate", "wrong_rate", "wrong_upper")
ARTIFACT = Path(equivalence.__file__).with_name("acceptance.json")


def is_comparable(pair: Pair) -> bool:
    """Whether the gateway compares questions of that length."""
    return max(len(pair.a), len(pair.b)) <= MAX_QUESTION_CHARS


def measure(
    pairs: Sequence[Pair], bound: float, texts: TextEmbeddings | None = None, *, alone: bool = False
) -> dict[str, Any]:
    """Figures of pairs with the shipped acceptance."""
    return evaluate(equivalence.load_acceptance(), pairs, bound, texts or TextEmbeddings(), alone=alone)


def evaluate(
    acceptance: Acceptance, pairs: Sequence[Pair], bound: float, texts: TextEmbeddings, *, alone: bool = False
) -> dict[str, Any]:
    """Figures of pairs with an acceptance. `alone`: also those of the embedding alone, for comparison. Pairs that are
    refused by their words are not embedded."""
    threshold = acceptance.threshold(bound)
    verdicts, judge_seconds = judge_pairs(acceptance, pairs, texts)
    is_sure = np.array([verdict.score >= threshold for verdict in verdicts])
    matches = is_sure & np.array([not verdict.veto for verdict in verdicts])
    same = np.array([pair.same for pair in pairs])
    intents = pair_intents(pairs)
    hits = is_sure & have_evidence(verdicts, is_sure, same, intents, acceptance.kinds)
    figures = rates(hits, same, intents) | {"declared_bound": bound}
    figures |= {"read_ms": round(measure_reading_seconds(pairs) * 1000, 3), "judge_ms": round(judge_seconds * 1000, 3)}
    figures["bound_kept"] = bool(figures["wrong_rate"] <= bound)
    figures["bound_kept_95"] = bool(figures["wrong_upper"] <= bound)
    for name, served in (("as_shipped", served_as_shipped(verdicts, threshold)), ("matches", matches)):
        served_rates = rates(served, same, intents)
        figures[name] = {figure: served_rates[figure] for figure in SUMMARY_FIGURES}
    figures["traps"] = trap_counts(pairs, verdicts, hits)
    missed = [(verdict.veto, pair.same) for verdict, pair, hit in zip(verdicts, pairs, hits, strict=True) if not hit]
    figures["vetoes"] = dict(Counter(kind for kind, repeat in missed if kind and not repeat))
    figures["vetoed_repeats"] = dict(Counter(kind for kind, repeat in missed if kind and repeat))
    if not alone:
        return figures
    cosines = np.array(
        [cosine(texts.question(pair.a), texts.question(pair.b)) if is_comparable(pair) else 0.0 for pair in pairs]
    )
    return figures | {"cosine_alone": best_cosine_threshold(cosines, same, bound)}


def measure_reading_seconds(pairs: Sequence[Pair]) -> float:
    """CPU seconds to read a text: the mean of the first thousand, each of which was read once before."""
    texts = list(dict.fromkeys(text for pair in pairs if is_comparable(pair) for text in (pair.a, pair.b)))[:1000]
    for text in texts:
        read_question(text)
    started = time.thread_time()
    for text in texts:
        read_question(text)
    return (time.thread_time() - started) / max(1, len(texts))


def judge_pairs(acceptance: Acceptance, pairs: Sequence[Pair], texts: TextEmbeddings) -> tuple[list[Verdict], float]:
    """The verdict of each pair, and the mean CPU seconds of one, without reading and embedding."""
    verdicts, seconds = [], 0.0
    for pair in pairs:
        if not is_comparable(pair):
            verdicts.append(Verdict(-inf, "long"))
            continue
        one, other = texts.read(pair.a), texts.read(pair.b)
        started = time.thread_time()
        difference = equivalence.compare_words(one, other)
        seconds += time.thread_time() - started
        if isinstance(difference, str):
            verdicts.append(Verdict(-inf, difference))
            continue
        embedded = texts.question(pair.a), texts.question(pair.b)
        started = time.thread_time()
        verdicts.append(equivalence.judge(acceptance, *embedded, difference))
        seconds += time.thread_time() - started
    return verdicts, seconds / len(pairs)


def have_evidence(
    verdicts: Sequence[Verdict], sure: Any, same: Any, intents: Sequence[str], known: frozenset[str]
) -> Any:
    """For each pair whether there is evidence of all its kinds of difference, shipped or from the `sure` pairs of other
    folds, which a workload would check. An intent is in one fold only."""
    rows = list(zip([verdict.kinds for verdict in verdicts], intents, same.tolist(), strict=True))
    fold_of_intent = {intent: position % FOLDS for position, intent in enumerate(sorted(set(intents)))}
    proven = [
        semantic_tune.kinds_with_evidence(
            (row for row, checked in zip(rows, sure, strict=True) if fold_of_intent[row[1]] != fold and checked),
            known,
        )
        for fold in range(FOLDS)
    ]
    return np.array([kinds <= proven[fold_of_intent[intent]] for kinds, intent, _ in rows])


def rates(hits: Any, same: Any, intents: Sequence[str]) -> dict[str, Any]:
    """Hit and wrong rates with their bounds."""
    wrong, hit_count, repeat_count = int((hits & ~same).sum()), int(hits.sum()), int(same.sum())
    shares = wrong_shares(hits, same, intents)
    return {
        "pairs": len(same), "repeats": repeat_count, "hits": hit_count, "wrong": wrong,
        "hit_rate": round(int((hits & same).sum()) / max(1, repeat_count), 4),
        "wrong_rate": round(wrong / max(1, hit_count), 5),
        "wrong_upper": round(semantic_tune.share_upper_bound(ceil(sum(shares)), len(shares)), 5) if hit_count else 1.0,
        "wrong_upper_independent": round(semantic_tune.share_upper_bound(wrong, hit_count), 5) if hit_count else 1.0,
        "intents": len(set(intents)), "intents_hit": len(shares),
        "wrong_per_lookup": round(wrong / len(same), 5),
        "wrong_per_lookup_upper": round(semantic_tune.share_upper_bound(wrong, len(same)), 5),
    }  # fmt: skip


def wrong_shares(hits: Any, same: Any, intents: Sequence[str]) -> list[float]:
    """For each intent with hits the share of them that are wrong."""
    hit_counts, wrong_counts = Counter[str](), Counter[str]()
    for intent, hit, right in zip(intents, hits, same, strict=True):
        hit_counts[intent] += bool(hit)
        wrong_counts[intent] += bool(hit and not right)
    return [wrong_counts[intent] / count for intent, count in hit_counts.items() if count]


def pair_intents(pairs: Sequence[Pair]) -> list[str]:
    """The intent of each pair: its group, or else one for all pairs that shared texts connect."""
    root: dict[str, str] = {}

    def find(text: str) -> str:
        while root.setdefault(text, text) != text:
            root[text] = root[root[text]]
            text = root[text]
        return text

    for pair in pairs:
        if not pair.group:
            root[find(pair.a)] = find(pair.b)
    return [pair.group or find(pair.a) for pair in pairs]


def trap_counts(pairs: Sequence[Pair], verdicts: Sequence[equivalence.Verdict], hits: Any) -> dict[str, dict[str, int]]:
    """For each kind of trap the number of traps, and of those answered. A trap without a kind is counted for the guard
    that refused it."""
    counts: dict[str, dict[str, int]] = {}
    for pair, verdict, hit in zip(pairs, verdicts, hits, strict=True):
        if not pair.same:
            kind = counts.setdefault(pair.kind or verdict.veto or "no guard", {"traps": 0, "wrong": 0})
            kind["traps"] += 1
            kind["wrong"] += bool(hit)
    return dict(sorted(counts.items()))


def best_cosine_threshold(cosines: Any, same: Any, bound: float) -> dict[str, Any]:
    """The highest hit rate within the bound of a threshold on similarity alone, with that threshold."""
    best = {"hit_rate": 0.0, "threshold": 1.0}
    for threshold in np.unique(cosines):
        hits = cosines >= threshold
        if (hits & ~same).sum() <= bound * hits.sum():
            rate = float((hits & same).sum() / max(1, same.sum()))
            if rate > best["hit_rate"]:
                best = {"hit_rate": round(rate, 4), "threshold": round(float(threshold), 4)}
    return best


def training_pairs(public_pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs for training: generated ones and the `public_pairs`; never reported."""
    generators = (semantic_pairs.generate_pairs, semantic_pairs.generate_plain, semantic_pairs.generate_qualified)
    rows = [row for seed in range(1, 7) for generate in generators for row in generate("tune", seed)]
    open_pairs = pairs_of_rows("open", list(semantic_put.generate_pairs("open", 1)))
    return [*pairs_of_rows("tune", rows), *open_pairs, *public_pairs]


EVIDENCE_FAMILIES = (*(("tune", seed) for seed in range(1, 7)), ("all", 1), ("asked", 1), ("anew", 1), ("outside", 1))
"""(family, seed) of the pairs that give evidence of kinds of difference."""


def learn_kinds(texts: TextEmbeddings) -> frozenset[str]:
    """The kinds of difference that the pairs of `EVIDENCE_FAMILIES` show to keep the meaning."""
    pairs = [
        pair
        for family, seed in EVIDENCE_FAMILIES
        for pair in pairs_of_rows(family, semantic_families.generate_family(family, seed))
    ]
    ways = (texts.read, texts.question), (lambda text: texts.original(text).reading, texts.original)
    return semantic_tune.proven_kinds(pairs, [pair.group for pair in pairs], *ways)


def sample_pairs() -> list[Pair]:
    """Some training pairs of each kind, from which the digest of the rule is computed."""
    rows = [
        row
        for generate in (semantic_pairs.generate_pairs, semantic_pairs.generate_plain)
        for row in generate("tune", 1, 1)
    ]
    return (
        pairs_of_rows("tune", rows)[::2] + pairs_of_rows("open", list(semantic_put.generate_pairs("open", 1, 1)))[::3]
    )


def train_acceptance(public_pairs: Sequence[Pair], texts: TextEmbeddings, kinds: frozenset[str]) -> Acceptance:
    """The acceptance trained on development pairs, with the proven `kinds` of difference."""
    pairs = training_pairs(public_pairs)
    harder, odd = [pair.kind in REPORTED_APART for pair in pairs], [pair.kind in (INSERTED, SORT) for pair in pairs]
    return semantic_tune.tune(
        pairs, [pair.group for pair in pairs], [texts.features(pair) for pair in pairs], kinds, harder, odd
    )


def write_acceptance(acceptance: Acceptance) -> None:
    """Write the acceptance file that ships."""
    ARTIFACT.write_bytes(msgspec.json.format(msgspec.json.encode(acceptance, order="sorted"), indent=1) + b"\n")


def held_out_rates(pairs: Sequence[Pair], bound: float, texts: TextEmbeddings) -> dict[str, Any]:
    """Figures of the public pairs, each with weights and a threshold trained on other texts, in five folds."""
    folds = [int(pair.group.split()[-1]) % FOLDS for pair in pairs]
    hits = np.zeros(len(pairs), dtype=bool)
    for fold in range(FOLDS):
        others = [pair for pair, pair_fold in zip(pairs, folds, strict=True) if pair_fold != fold]
        acceptance = train_acceptance(others, texts, equivalence.load_acceptance().kinds)
        for position, (pair, pair_fold) in enumerate(zip(pairs, folds, strict=True)):
            if pair_fold == fold and is_comparable(pair):
                verdict = equivalence.judge(acceptance, texts.question(pair.a), texts.question(pair.b))
                hits[position] = verdict.score >= acceptance.threshold(bound) and not verdict.unproven
    is_reported_apart = np.array([pair.kind in REPORTED_APART for pair in pairs])
    others = [pair for pair in pairs if pair.kind not in REPORTED_APART]
    figures = rates(hits[~is_reported_apart], np.array([pair.same for pair in others]), pair_intents(others))
    wrong_kinds = Counter(pair.kind for pair, hit in zip(pairs, hits, strict=True) if hit and not pair.same)
    return {name: figures[name] for name in SUMMARY_FIGURES} | {"wrong_by_kind": dict(wrong_kinds)}


def public_details(pairs: Sequence[Pair], draw: int, bound: float, texts: TextEmbeddings) -> dict[str, Any]:
    """Further figures of the public pairs: of the traps reported apart, and with the pairs held out of training."""
    acceptance, hard = equivalence.load_acceptance(), [pair for pair in pairs if pair.kind in REPORTED_APART]
    verdicts, _ = judge_pairs(acceptance, hard, texts)
    figures = {"told_apart": trap_counts(hard, verdicts, served_as_shipped(verdicts, acceptance.threshold(bound)))}
    return figures | ({} if draw else {"held_out": held_out_rates(pairs, bound, texts)})


def served_as_shipped(verdicts: Sequence[Verdict], threshold: float) -> Any:
    """For each pair whether it is served on the first day, with the shipped evidence alone."""
    return np.array([verdict.score >= threshold and not verdict.veto and not verdict.unproven for verdict in verdicts])


def pairs_of_rows(family: str, rows: Sequence[dict[str, Any]]) -> list[Pair]:
    """Pairs of a generator's rows, each with its intent as group."""
    return [Pair(row["a"], row["b"], row["same"], row["kind"], f"{family} {row['intent']}") for row in rows]


def retrain_if_requested(arguments: argparse.Namespace) -> bool:
    """Train and write a new shipped file if requested; returns whether it did."""
    if arguments.tune is not None:
        pairs = read_public_pairs(arguments.tune)
        texts = TextEmbeddings(served=False)
        write_acceptance(
            msgspec.structs.replace(
                train_acceptance(pairs, texts, learn_kinds(texts)), rule=semantic_tune.rule_digest(sample_pairs())
            )
        )
    elif arguments.kinds:
        write_acceptance(
            msgspec.structs.replace(equivalence.load_acceptance(), kinds=learn_kinds(TextEmbeddings(served=False)))
        )
    return arguments.tune is not None or bool(arguments.kinds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="?", type=Path)
    parser.add_argument("--generated", nargs="+", type=int, metavar="SEED")
    parser.add_argument("--family", choices=tuple(semantic_families.FAMILIES), default="wide")
    parser.add_argument("--public", type=Path, metavar="GPTCACHE")
    parser.add_argument("--tune", type=Path, metavar="GPTCACHE")
    parser.add_argument("--kinds", action="store_true")
    parser.add_argument("--draw", type=int, default=0, help="of the traps of --public; only 0 is left out by fifths")
    parser.add_argument("--bound", type=float, default=0.01)
    parser.add_argument("--alone", action="store_true", help="tell what the embedding alone would do, too: slow")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not 0 < arguments.bound < 1:
        parser.error("--bound is a share between 0 and 1, such as 0.01")
    try:
        if retrain_if_requested(arguments):
            return 0
        if arguments.generated:
            rows = [
                row for seed in arguments.generated for row in semantic_families.generate_family(arguments.family, seed)
            ]
            pairs = pairs_of_rows(arguments.family, rows)
        elif arguments.public is not None:
            public_pairs = read_public_pairs(arguments.public, arguments.draw)
            pairs = [pair for pair in public_pairs if pair.kind not in REPORTED_APART]
        elif arguments.pairs is not None:
            pairs = read_pairs(arguments.pairs)
        else:
            parser.error("name PAIRS.jsonl, --generated SEEDS or --public GPTCACHE")
        texts = TextEmbeddings()
        figures = measure(pairs, arguments.bound, texts, alone=arguments.alone)
        if arguments.public is not None:
            figures |= public_details(public_pairs, arguments.draw, arguments.bound, texts)
    except GroundplanError as error:
        sys.stderr.write(f"semantic_cache: {error}\n")
        return error.exit_code
    figures["machine"] = machine()
    figures["commit"] = commit()
    if arguments.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key}: {json.dumps(value)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
