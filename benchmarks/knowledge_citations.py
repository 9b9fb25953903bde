"""How often the check of citations is right: on sentences that their passage supports, and on others.

The set is `knowledge_claims.py`. Claims that words do not decide are decided by meaning; the settings of that decision
are chosen on four fifths of the passages and evaluated on the last one, five times, so no figure comes from data that
settings were chosen on. `flagged` counts flagged citations: `precision` is the share of them that the passage does not
support, `recall` the share of unsupported claims that are flagged.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from groundplan.core.settings import load_settings
from groundplan.knowledge.citations.support import SETTINGS, Settings, WordMatch, decide, match_words, prepare_passage
from groundplan.knowledge.embedding.openvino_encoder import load_encoder
from groundplan.runtime.models import MINILM, ensure

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge_claims import CLAIMS, PASSAGES
from benchmarks.knowledge_machine import run_details

FOLDS = 5
GRID = [
    Settings(words, 1.0, round(least, 3))
    for words in (0.0, 0.25, 0.5, 0.75, 1.0)
    for least in np.arange(0.3, 1.51, 0.05)
]

Case = tuple[WordMatch, float, bool]
"""(match by words, highest similarity of meaning, whether the passage supports the claim)"""


def match_claims() -> tuple[list[Case], float]:
    """A case for each claim, and the mean milliseconds of matching words."""
    encoder = load_encoder(ensure(load_settings().models, MINILM.name))
    started = time.process_time()
    matches = [match_words(claim.sentence, prepare_passage(PASSAGES[claim.passage])) for claim in CLAIMS]
    milliseconds = (time.process_time() - started) * 1000 / len(CLAIMS)
    cases: list[Case] = []
    for claim, match in zip(CLAIMS, matches, strict=True):
        similarity = 0.0
        if match.decided is None and match.places:
            vectors = encoder.embed([claim.sentence, *(place.text for place in match.places)])
            similarity = float((vectors[1:] @ vectors[0]).max())
        cases.append((match, similarity, claim.supported))
    return cases, milliseconds


def decide_case(case: Case, settings: Settings) -> bool:
    """The decision, by words or by meaning."""
    match, similarity, _ = case
    return match.decided if match.decided is not None else decide(match.share, similarity, settings)


def choose_settings(training_cases: Sequence[Case]) -> Settings:
    """The settings that are right most often; of several such ones, the middle one."""
    right = [sum(decide_case(case, settings) == case[2] for case in training_cases) for settings in GRID]
    best = [settings for settings, count in zip(GRID, right, strict=True) if count == max(right)]
    return best[len(best) // 2]


def figures(decisions: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    """Precision, recall and accuracy of pairs (decided to be supported, supported)."""
    flagged = [truth for decided, truth in decisions if not decided]
    wrong = [decided for decided, truth in decisions if not truth]
    return {
        "precision": round(flagged.count(False) / max(1, len(flagged)), 4),
        "recall": round(wrong.count(False) / max(1, len(wrong)), 4),
        "right": round(sum(decided == truth for decided, truth in decisions) / len(decisions), 4),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with threadpool_limits(limits=1, user_api="blas"):
        cases, milliseconds = match_claims()
    folds = [claim.passage % FOLDS for claim in CLAIMS]
    decisions: list[bool] = [False] * len(cases)
    settings: list[list[float]] = []
    for fold in range(FOLDS):
        chosen = choose_settings([case for case, claim_fold in zip(cases, folds, strict=True) if claim_fold != fold])
        settings.append([chosen.words, chosen.least])
        for position, case in enumerate(cases):
            if folds[position] == fold:
                decisions[position] = decide_case(case, chosen)
    kinds: dict[str, list[bool]] = defaultdict(list)
    for claim, decided in zip(CLAIMS, decisions, strict=True):
        kinds[claim.kind].append(decided == claim.supported)
    result: dict[str, Any] = {
        "claims": len(CLAIMS),
        "flagged": figures([(decided, claim.supported) for decided, claim in zip(decisions, CLAIMS, strict=True)]),
        "right_by_kind": {kind: round(sum(chosen) / len(chosen), 3) for kind, chosen in kinds.items()},
        "decided_by_words": round(sum(case[0].decided is not None for case in cases) / len(cases), 4),
        "chosen_in_folds": settings,
        "chosen_on_all": [choose_settings(cases).words, choose_settings(cases).least],
        "shipped": [SETTINGS.words, SETTINGS.least],
        "flagged_with_shipped": figures([(decide_case(case, SETTINGS), case[2]) for case in cases]),
        "words_cpu_ms": round(milliseconds, 3),
        **run_details(f"{len(CLAIMS)} sentences about {len(PASSAGES)} passages, in benchmarks/knowledge_claims.py"),
    }
    print(json.dumps(result, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
