"""Every figure that the Cost pages show, and those that Overview, Workloads, Calls, Operations and Placement read from
the ledger, queried as the console does: through the routes of the control API, on a real blueprint. Measures nothing;
`cost_queries` does.

`tests/unit/test_cost_figures.py` fails if a page queries a figure that is missing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg_pool import ConnectionPool

from groundplan.api import readiness, served_blueprint
from groundplan.api.caller import Caller
from groundplan.api.context import Services
from groundplan.api.genesis import prepare_home
from groundplan.api.placement import placing
from groundplan.api.placement import serving as placement_serving
from groundplan.api.release import Releases
from groundplan.api.routes import (
    costs,
    experiments,
    inbox,
    ledger,
    limits,
    opportunities,
    replays,
    routing,
    tickets,
    traffic,
    workloads,
)
from groundplan.api.watch import anomalies
from groundplan.core.audit.entry import OPERATOR
from groundplan.core.clock import SystemClock
from groundplan.core.home import Home
from groundplan.ledger import opportunity_store
from groundplan.maturity import service as maturity
from groundplan.release.model import Current
from groundplan.release.observed import read_observations
from groundplan.testing.database import Database

WORKLOADS, DEPLOYMENTS, SITES, TEAMS, PEOPLE = 12, 5, 3, 4, 5000
READER: Any = None
"""The caller of routes that only check the permission to read, which happens before: they do not use it."""
Figure = Callable[[], object]
_DAYS = timedelta(days=30)
_PEOPLE = """INSERT INTO person (id, email, name)
  SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(g), 12, '0'))::uuid, g || '@acme.example', 'Person ' || g
  FROM generate_series(0, %(people)s - 1) g"""
"""The people whose calls `cost_queries` generates."""
_COMPANY = """\
kind: company
name: acme
approvals: {parts: []}
---
kind: person
name: ana
email: ana@acme.example
full_name: Ana Lind
"""
_ALLOCATIONS = """\
---
kind: allocation
name: platform
term: platform
cost: 900 USD/month
by: calls
source: contract 12
---
kind: allocation
name: rack
term: capacity
cost: 40 USD/day
covers: deployment/deployment-0
capacity: 900M/day
source: invoice 7
---
kind: allocation
name: room
term: energy
cost: 300 USD/month
covers: site/site-1
source: invoice 8
---
kind: allocation
name: desk
term: support
rate: 0.2 USD
per: 1000 calls
source: contract 3
from: 2026-01-01
"""


def workspace() -> str:
    """The declarations of the company whose calls `cost_queries` generates."""
    documents = [_COMPANY]
    documents += [f"---\nkind: team\nname: team-{n}\nmembers: [ana]\n" for n in range(TEAMS)]
    documents += [f"---\nkind: site\nname: site-{n}\ntype: cloud\njurisdiction: EU\n" for n in range(SITES)]
    documents += [
        f"---\nkind: deployment\nname: deployment-{n}\nsite: site-{n % SITES}\nmodel: provider/model-{n}\n"
        f"url: http://127.0.0.1:9/v1\nprice: {{input: {n + 1} USD/Mtok, output: {4 * n + 4} USD/Mtok}}\n"
        for n in range(DEPLOYMENTS)
    ]
    deployments = ", ".join(f"deployment-{n}" for n in range(DEPLOYMENTS))
    for n in range(WORKLOADS):
        documents.append(
            f"---\nkind: workflow\nname: flow-{n}\npurpose: answer\nowner: ana\noutcome: answered\n"
            "baseline: {minutes_per_case: 6, cost_per_case: 4 USD, cases: 10/day, measured: 2026-06-30}\n"
            f"---\nkind: workload\nname: workload-{n}\npurpose: Answer\nworkflow: flow-{n}\nteam: team-{n % TEAMS}\n"
            f"stage: pilot\nsensitivity: internal\nresidency: [EU]\ndeployments: [{deployments}]\n"
            "cache: {answers: exact, semantic: {wrong_at_most: 1%}}\n"
            "objectives: {quality: {accuracy: 90%, tone: 80%}}\nowners: {business: ana}\n"
            f"---\nkind: budget\nname: workload-{n}\ncovers: workload/workload-{n}\nlimit: 100000 USD/month\n"
        )
    return "".join(documents) + _ALLOCATIONS


@dataclass(frozen=True, slots=True)
class Company:
    """A control plane without its process: the services that the routes need."""

    services: Services


@contextmanager
def open_company(database: Database, folder: Path) -> Iterator[Company]:
    """Services with blueprint 1 of `workspace`, on the database role of the control process."""
    home = Home(folder / "home")
    prepare_home(home)
    clock = SystemClock()
    releases = Releases(home, clock)
    with ConnectionPool(database.urls["control"], min_size=1, max_size=2, open=True) as pool:
        services = Services(home, database.settings(folder / "home"), None, False, releases, pool, clock)
        with services.transaction() as conn:
            releases.genesis(conn, {"acme.yaml": workspace()})
            conn.execute(_PEOPLE, {"people": PEOPLE})
        yield Company(services)


def figures(company: Company) -> dict[str, Figure]:
    """Name -> one query of a page, over the current month up to today or over 30 days, as the pages have it."""
    services = company.services
    return {**_month_figures(services), **_live_figures(services), **_book_figures(services),
            **_workload_figures(services), **_forecast_figures(services), **_decision_figures(services)}  # fmt: skip


def background(company: Company) -> dict[str, Figure]:
    """Background work that reads the ledger: no page waits for it."""
    services = company.services

    def update_with_new_baseline() -> object:
        anomalies._usual_by_database.clear()
        return anomalies.update_findings(services)

    return {"the watch over spending, once a minute": lambda: anomalies.update_findings(services),
            "the same with what is usual, once an hour": update_with_new_baseline}  # fmt: skip


def _month_figures(services: Services) -> dict[str, Figure]:
    return {
        "/api/cost": lambda: ledger.cost(services, READER),
        "/api/cost?days": lambda: ledger.cost(services, READER, days=1),
        "/api/cost/days": lambda: ledger.cost_by_day(services, READER),
        "/api/limits": lambda: limits.limits(services, READER),
        "/api/cost/anomalies": lambda: costs.anomalies(services, READER),
        "/api/workloads": lambda: workloads.list_workloads(services, READER),
        "/api/names": lambda: workloads.names(services, READER, called=True),
        "readiness of every workload, not remembered": lambda: _readiness(services),
        "/api/calls": lambda: ledger.list_calls(services, _operator(), limit=50),
        "/api/calls?workload": lambda: ledger.list_calls(services, _operator(), workload="workload-3", limit=50),
        "/api/calls?of somebody who made none": lambda: ledger.list_calls(services, _stranger(), limit=50),
        "/api/calls/ID": lambda: ledger.receipt(_newest_call_id(services), services, _operator()),
    }


def _live_figures(services: Services) -> dict[str, Figure]:
    def in_transaction(query: Callable[[Connection[Any], datetime], object]) -> Figure:
        def figure() -> object:
            with services.transaction() as conn:
                return query(conn, services.clock.now())

        return figure

    return {
        "/api/overview": lambda: workloads.ground_plan(services, READER),
        "/api/workloads/NAME": lambda: workloads.one_workload("workload-3", services, READER),
        "/api/traffic": lambda: traffic.live_traffic(services, READER, minutes=15),
        "/api/traffic?workload": lambda: traffic.live_traffic(services, READER, minutes=15, workload="workload-3"),
        "/api/inbox": lambda: inbox.inbox(services, _operator()),
        "days of every workload, for the charts of plans": in_transaction(
            lambda conn, now: placing.drift_charts(conn, served_blueprint.current_blueprint(conn), now)
        ),
        "times of every deployment, for plans": in_transaction(
            lambda conn, now: read_observations(conn, served_blueprint.workspace_at(conn, 1), now, planned=True)
        ),
        "days of every deployment, for plans": in_transaction(
            lambda conn, now: placement_serving.calibration_rows(conn, now, placing.served_company(conn, services))
        ),
    }


def _book_figures(services: Services) -> dict[str, Figure]:
    dimensions = ("term", "workload", "workflow", "team", "provider", "site", "deployment", "model", "tier", "feature",
          "prompt", "source", "person", "tag", "basis")  # fmt: skip

    def book_by(name: str) -> Figure:
        return lambda: costs.book(services, READER, by=name, lines=True)

    return {
        **{f"/api/cost/book?by={name}": book_by(name) for name in dimensions},
        "/api/cost/book?first": lambda: costs.book(services, READER, first=_today() - _DAYS, by="term", lines=True),
        "/api/cost/book?first&by=person": lambda: costs.book(
            services, READER, first=_today() - _DAYS, last=_today() - _DAYS / 30, by="person", lines=True
        ),
        "/api/cost/book?first&last&by=person": lambda: costs.book(
            services, READER, first=_today() - 25 * _DAYS / 30, last=_today() - 12 * _DAYS / 30, by="person", lines=True
        ),
        "/api/cost/sources": lambda: costs.sources(services, READER),
        "/api/cost/people": lambda: costs.people(services, READER, limit=50),
        "/api/cost/statements": lambda: costs.all_statements(services, READER, month=_last_month()),
        "/api/cost/focus.csv": lambda: costs.focus(services, _operator()),
    }


def _workload_figures(services: Services) -> dict[str, Figure]:
    name = "workload-3"
    return {
        "/api/cost/book?workload": lambda: costs.book(services, READER, by="term", workload=name, lines=True),
        "/api/cost/people?workload": lambda: costs.people(services, READER, workload=name, limit=50),
        "/api/cost/features?workload": lambda: costs.features(services, READER, workload=name),
        "/api/cost/outcomes": lambda: costs.outcomes(services, READER),
        "/api/cost/tickets": lambda: tickets.tickets(services, READER),
    }


def _forecast_figures(services: Services) -> dict[str, Figure]:
    return {
        "/api/cost/runway": lambda: costs.runway(services, READER),
        "/api/cost/own": lambda: costs.own(services, READER),
        "/api/cost/forecast": lambda: costs.forecast_of(services, READER, days=30),
        "/api/cost/what-if": lambda: costs.what_if(costs.WhatIf(changes=["users=10", "price=-30%"]), services, READER),
    }


def _decision_figures(services: Services) -> dict[str, Figure]:
    names = [f"workload-{n}" for n in range(WORKLOADS)]

    def grounded_passages() -> object:
        with services.transaction() as conn:
            return opportunity_store.grounded_calls(conn, datetime.now(UTC) - _DAYS, names)

    return {
        "/api/opportunities": lambda: opportunities.opportunities(services, READER, days=30),
        "passages of every workload, for its levers": grounded_passages,
        "/api/routing/trade-off": lambda: routing.trade_off(services, READER, workload="workload-3", days=30),
        "/api/experiments": lambda: experiments.experiments(services, READER),
        "/api/replays": lambda: replays.replays(services, READER),
    }


def _readiness(services: Services) -> object:
    with services.transaction() as conn:
        blueprint = served_blueprint.current_blueprint(conn)
        current = Current(blueprint, served_blueprint.workspace_at(conn, blueprint.number))
        readiness._cache.clear()
        return maturity.readiness(conn, current, services.clock.now())


def _newest_call_id(services: Services) -> Any:
    with services.transaction() as conn:
        row = conn.execute("SELECT id FROM call ORDER BY at DESC LIMIT 1").fetchone()
    assert row is not None
    return row[0]


def _today() -> Any:
    return datetime.now(UTC).date()


def _last_month() -> str:
    first = _today().replace(day=1) - timedelta(days=1)
    return f"{first:%Y-%m}"


def _stranger() -> Caller:
    """A caller who holds no duty and has never made a call."""
    return Caller(f"person:{UUID(int=7)}", UUID(int=7), "nobody@acme.example", "Nobody", False)


def _operator() -> Caller:
    """A caller for the routes that check its rights."""
    return Caller(OPERATOR, None, None, "operator", True)
