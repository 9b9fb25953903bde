"""How often the check of citations is right: on sentences that their passage supports, and on others.

The set is `knowledge_claims.py`. What words leave open is decided by meaning; the settings of that decision are chosen
on all passages but one fifth and tried on that fifth, five times, so no figure comes from what it was chosen on.
`flagged` counts citations that are flagged: `precision` is the part of them that the passage does not say, `recall` the
part of what no passage says that is flagged.
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
"""What words say, the nearest by meaning, and whether the passage says it."""


def match_claims() -> tuple[list[Case], float]:
    """One for each claim, and the milliseconds that words took for one."""
    encoder = load_encoder(ensure(load_settings().models, MINILM.name))
    begun = time.process_time()
    looks = [match_words(claim.sentence, prepare_passage(PASSAGES[claim.passage])) for claim in CLAIMS]
    took = (time.process_time() - begun) * 1000 / len(CLAIMS)
    found: list[Case] = []
    for claim, seen in zip(CLAIMS, looks, strict=True):
        near = 0.0
        if seen.decided is None and seen.places:
            vectors = encoder.embed([claim.sentence, *(place.text for place in seen.places)])
            near = float((vectors[1:] @ vectors[0]).max())
        found.append((seen, near, claim.supported))
    return found, took


def decide_case(case: Case, settings: Settings) -> bool:
    """The decision, by words or by meaning."""
    seen, near, _ = case
    return seen.decided if seen.decided is not None else decide(seen.share, near, settings)


def choose_settings(training_cases: Sequence[Case]) -> Settings:
    """The settings that are right most often; of equal ones that in the middle."""
    right = [sum(decide_case(case, settings) == case[2] for case in training_cases) for settings in GRID]
    best = [settings for settings, count in zip(GRID, right, strict=True) if count == max(right)]
    return best[len(best) // 2]


def figures(decisions: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    """From (decided that it is said, it is said)."""
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
        every, took = match_claims()
    folds = [claim.passage % FOLDS for claim in CLAIMS]
    crossed: list[bool] = [False] * len(every)
    settings: list[list[float]] = []
    for fold in range(FOLDS):
        own = choose_settings([case for case, at in zip(every, folds, strict=True) if at != fold])
        settings.append([own.words, own.least])
        for place, case in enumerate(every):
            if folds[place] == fold:
                crossed[place] = decide_case(case, own)
    kinds: dict[str, list[bool]] = defaultdict(list)
    for claim, decided in zip(CLAIMS, crossed, strict=True):
        kinds[claim.kind].append(decided == claim.supported)
    result: dict[str, Any] = {
        "claims": len(CLAIMS),
        "flagged": figures([(decided, claim.supported) for decided, claim in zip(crossed, CLAIMS, strict=True)]),
        "right_by_kind": {kind: round(sum(own) / len(own), 3) for kind, own in kinds.items()},
        "decided_by_words": round(sum(case[0].decided is not None for case in every) / len(every), 4),
        "chosen_in_folds": settings,
        "chosen_on_all": [choose_settings(every).words, choose_settings(every).least],
        "shipped": [SETTINGS.words, SETTINGS.least],
        "flagged_with_shipped": figures([(decide_case(case, SETTINGS), case[2]) for case in every]),
        "words_cpu_ms": round(took, 3),
        **run_details(f"{len(CLAIMS)} sentences about {len(PASSAGES)} passages, in benchmarks/knowledge_claims.py"),
    }
    print(json.dumps(result, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
