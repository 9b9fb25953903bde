"""Work beside the requests of the control process: the audit sequencer, indexing, and kills written offline."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from functools import partial

import psycopg

from groundplan.api import (
    anomalies,
    approvals_look,
    costs,
    dated_prices,
    experiments_look,
    floors_look,
    held,
    index_editions,
    kept_look,
    mail,
    model_changes,
    owners_left,
    placing,
    policy_shadow,
    prices_look,
    prompt_changes,
    ramps_look,
    replays,
    rights_look,
    router_look,
    siem,
    signals,
    weekly,
    witnesses,
)
from groundplan.api.context import Services
from groundplan.api.crossings import LOOK_SECONDS, look
from groundplan.api.every import Every
from groundplan.api.ingest import Indexing
from groundplan.api.knowledge_upkeep import LOOK_SECONDS as SOURCES_SECONDS
from groundplan.api.knowledge_upkeep import SWEEP_SECONDS as UPKEEP_SECONDS
from groundplan.api.knowledge_upkeep import replay_now
from groundplan.api.knowledge_upkeep import sweep_now as upkeep
from groundplan.api.retention import SWEEP_SECONDS, sweep_now
from groundplan.core.audit.entry import OPERATOR
from groundplan.core.audit.keys import load_private
from groundplan.core.audit.sequencer import Sequencer
from groundplan.core.database import database_url
from groundplan.core.errors import GroundplanError
from groundplan.identity import erase
from groundplan.identity import service as identity

log = logging.getLogger("groundplan.api.background")
WATCH_SECONDS = 1.0


def start(services: Services, indexing: Indexing, stack: ExitStack) -> Sequencer:
    """Start everything; `stack` stops it in reverse. Returns what writes the audit log."""
    take_over_kills(services)
    repeat(stack, Every("taking over kills", WATCH_SECONDS, partial(take_over_kills, services)))
    replay_erasures(services)
    sequencer = Sequencer(
        database_url(services.home, services.settings, "control"),
        services.home.audit,
        load_private(services.home, "checkpoint"),
        home=services.home,
    )
    sequencer.start()
    stack.callback(sequencer.stop)
    repeat(stack, Every("deleting kept content", SWEEP_SECONDS, partial(sweep_now, services)))
    replay_now(services)
    repeat(stack, Every("erasing documents", UPKEEP_SECONDS, partial(upkeep, services)))
    repeat(stack, Every("looking at sources", SOURCES_SECONDS, indexing.again))
    repeat(stack, Every("grouping unanswered questions", signals.GATHER_SECONDS, partial(signals.gather_now, services)))
    indexing.start()
    stack.callback(indexing.stop)
    repeat(stack, Every("making the index", index_editions.LOOK_SECONDS, partial(index_editions.look, services)))
    repeat(stack, Every("forgetting requests", costs.FORGET_SECONDS, partial(costs.forget_asked, services)))
    repeat(stack, Every("adding up costs", costs.FOLD_SECONDS, partial(costs.fold, services)))
    reviews = partial(costs.take_reviews, services)
    repeat(stack, Every("taking reviews as outcomes", costs.REVIEWS_SECONDS, reviews))
    repeat(stack, Every("writing to owners", weekly.LOOK_SECONDS, partial(weekly.look, services)))
    repeat(stack, Every("looking at prices", prices_look.LOOK_SECONDS, partial(prices_look.look_now, services)))
    begin = dated_prices.Looking(services).look
    repeat(stack, Every("taking prices that begin", dated_prices.LOOK_SECONDS, begin))
    repeat(stack, Every("sampling what is kept", kept_look.LOOK_SECONDS, partial(kept_look.look, services)))
    repeat(stack, Every("archiving facts", costs.ARCHIVE_SECONDS, partial(costs.keep, services)))
    repeat(stack, Every("watching spending", anomalies.WATCH_SECONDS, partial(anomalies.watch, services)))
    repeat(stack, Every("looking at routers", router_look.LOOK_SECONDS, partial(router_look.look_now, services)))
    repeat(stack, Every("looking at floors", floors_look.LOOK_SECONDS, partial(floors_look.look_now, services)))
    tried = partial(experiments_look.look, services)
    repeat(stack, Every("looking at experiments", experiments_look.LOOK_SECONDS, tried))
    repeat(stack, Every("replaying calls", replays.LOOK_SECONDS, partial(replays.work, services)))
    repeat(stack, Every("looking at budgets", LOOK_SECONDS, partial(look, services)))
    repeat(stack, Every("sending security events", siem.SEND_SECONDS, partial(siem.send_new, services)))
    repeat(stack, Every("asking witnesses", witnesses.ASK_SECONDS, partial(witnesses.look, services)))
    repeat(stack, Every("looking at approvals", approvals_look.LOOK_SECONDS, partial(approvals_look.look, services)))
    repeat(stack, Every("looking at models", model_changes.LOOK_SECONDS, partial(model_changes.look, services)))
    reworded = prompt_changes.Looking(services).look
    repeat(stack, Every("looking at prompts", prompt_changes.LOOK_SECONDS, reworded))
    repeat(stack, Every("trying rules", policy_shadow.LOOK_SECONDS, partial(policy_shadow.look, services)))
    repeat(stack, Every("sending mail", mail.SEND_SECONDS, partial(mail.send_waiting, services)))
    repeat(stack, Every("looking at rights", rights_look.LOOK_SECONDS, partial(rights_look.look, services)))
    repeat(stack, Every("closing reviews", held.SWEEP_SECONDS, partial(held.sweep_now, services)))
    repeat(stack, Every("looking at placement", placing.LOOK_SECONDS, partial(placing.look, services)))
    repeat(stack, Every("going over to new places", ramps_look.LOOK_SECONDS, partial(ramps_look.look, services)))
    repeat(stack, Every("looking at duties", owners_left.LOOK_SECONDS, partial(owners_left.look, services)))
    return sequencer


def repeat(stack: ExitStack, every: Every) -> None:
    every.start()
    stack.callback(every.stop)


def replay_erasures(services: Services) -> int:
    """Destroy again what was erased and came back with an older backup; how many people were erased."""
    with services.transaction() as conn:
        erase.forget_due(conn, services.clock.now())
        return erase.replay(conn, services.home)


def take_over_kills(services: Services) -> int:
    """Put the kills of HOME/run/kill.json, which `groundplan kill` writes where this API did not answer, into the live
    policy, then remove it; how many there were.

    Gateways heed the file until it is gone, so there is no moment at which a kill does not hold.
    """
    path = services.home.run / "kill.json"
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        kills = [(str(item["scope"]), str(item["reason"])) for item in held]
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError):
        log.error("%s cannot be read; gateways go on by what they read before", path)
        return 0
    try:
        with services.transaction() as conn:
            for scope, reason in kills:
                identity.kill(conn, OPERATOR, scope, f"{reason} (written offline)")
    except (GroundplanError, psycopg.Error) as error:
        log.error("%s cannot be taken over yet: %s", path, error)
        return 0
    path.unlink(missing_ok=True)
    return len(kills)
