"""The pages of experiments and replays under Cost, with their forms. They decide nothing and show no texts of calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, Field

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console import cost_charts
from groundplan.console.actions import Text
from groundplan.console.charts import COLOURS, INK
from groundplan.console.client import Reply
from groundplan.console.form_result import propagation_note, redirect_with_result
from groundplan.console.pages import fetch_all
from groundplan.console.pagination import search_page
from groundplan.console.render import VisitorDep, render_for, visitor_api

router = lazy_router(prefix="/cost", include_in_schema=False, default_response_class=HTMLResponse)
forms = lazy_router(prefix="/do", include_in_schema=False)
Line = Annotated[str, Field(max_length=2000)]
HERE, TAB = "/cost/experiments", "Experiments"
CHOICES = 20
"""Workloads with a form each."""


@router.get("/experiments")
async def experiments(request: Request, visitor: VisitorDep, workload: str = "") -> HTMLResponse:
    """The page of experiments: running ones with their results, pending approvals, and replays."""
    query = f"?{urlencode({'workload': workload})}" if workload else ""
    found = await fetch_all(visitor, found=f"/api/experiments{query}", replayed=f"/api/replays{query}")
    rows = found["found"]["experiments"]
    part = search_page(request, found["found"]["workloads"], lambda row: str(row["name"]), CHOICES)
    values = {
        "waiting": [each for each in rows if each["state"] == "asked"],
        "running": [each for each in rows if each["state"] == "running"],
        "over": [each for each in rows if each["state"] in ("ended", "refused")],
        "replays": found["replayed"]["replays"],
        "workload": workload,
        "choices": part.rows,
        "part": part,
        "tab": TAB,
    }
    return await render_for(request, visitor, "experiments.html", "/cost", **values)


@router.get("/experiments/{id}")
async def experiment(request: Request, visitor: VisitorDep, id: str) -> HTMLResponse:
    """One of them: the interval at every look, guards, segments and pairs."""
    found = await fetch_all(visitor, tried=f"/api/experiments/{quote(id, safe='')}")
    tried = found["tried"]
    chart = sequence_chart(tried["looks"], required_sample(tried), tried["type"])
    return await render_for(request, visitor, "experiment.html", "/cost", tried=tried, chart=chart, tab=TAB)


@router.get("/replays/{id}")
async def replay(request: Request, visitor: VisitorDep, id: str) -> HTMLResponse:
    """The page of a replay: its result and its calls."""
    found = await fetch_all(visitor, run=f"/api/replays/{quote(id, safe='')}")
    return await render_for(request, visitor, "replay.html", "/cost", run=found["run"], tab=TAB)


class Trial(BaseModel):
    """The form of an experiment, as it was filled in."""

    csrf: Line
    workload: Line
    candidate: Line
    budget: Line
    reason: Line = ""
    type: Line = "shadow"
    judge: Line = ""
    share: Line = "0.1"
    name: Line = ""

    def body(self) -> dict[str, Any]:
        return {
            "workload": self.workload, "candidate": self.candidate, "type": self.type,
            "name": self.name or f"{self.type}-{self.candidate}"[:63],
            "judge": self.judge if self.judge and self.type == "shadow" else None, "share": self.share,
            "budget_usd": self.budget, "reason": self.reason or "started in the console",
        }  # fmt: skip


@forms.post("/experiment-start")
async def start(request: Request, trial: Annotated[Trial, Form()]) -> RedirectResponse:
    """Begin one, or ask for it where somebody else must approve."""
    reply = await visitor_api(request, trial.csrf).post("/api/experiments", trial.body())
    waits = reply.ok and reply.body["state"] == "asked"
    notice = (
        "It waits for approval by somebody else with the duty product or business."
        if waits
        else f"It runs{propagation_note(reply)}."
    )
    return redirect_with_result(_page(reply), reply, notice)


@forms.post("/experiment-approve")
async def approve(request: Request, csrf: Text, id: Text, reason: Text = "") -> RedirectResponse:
    reply = await _post(request, csrf, id, "approve", reason)
    return redirect_with_result(f"{HERE}/{quote(id, safe='')}", reply, f"Approved: it runs{propagation_note(reply)}.")


@forms.post("/experiment-refuse")
async def refuse(request: Request, csrf: Text, id: Text, reason: Text = "") -> RedirectResponse:
    return redirect_with_result(HERE, await _post(request, csrf, id, "refuse", reason), "Refused.")


@forms.post("/experiment-stop")
async def stop(request: Request, csrf: Text, id: Text, reason: Text = "") -> RedirectResponse:
    reply = await _post(request, csrf, id, "stop", reason)
    return redirect_with_result(f"{HERE}/{quote(id, safe='')}", reply, f"Stopped{propagation_note(reply)}.")


@forms.post("/replay-start")
async def start_replay(
    request: Request, csrf: Text, workload: Text, candidate: Text, judge: Text, budget: Text, calls: Text = "200"
) -> RedirectResponse:
    """Start a replay of stored calls."""
    body = {"workload": workload, "candidate": candidate, "judge": judge, "budget_usd": budget, "calls": calls}
    reply = await visitor_api(request, csrf).post("/api/replays", body)
    path = f"/cost/replays/{reply.body['id']}" if reply.ok else HERE
    return redirect_with_result(path, reply, "The replay is running; this page shows its progress.")


@forms.post("/pair-review")
async def review(
    request: Request, csrf: Text, id: Text, call: Text, kept: Text, of: Text = "experiment"
) -> RedirectResponse:
    """What a person thinks of a second answer."""
    replayed = of == "replay"
    path = f"/api/replays/{quote(id, safe='')}/calls" if replayed else f"/api/experiments/{quote(id, safe='')}/pairs"
    reply = await visitor_api(request, csrf).post(f"{path}/{quote(call, safe='')}/review", {"kept": kept == "yes"})
    return redirect_with_result(f"{'/cost/replays' if replayed else HERE}/{quote(id, safe='')}", reply, "Noted.")


async def _post(request: Request, csrf: str, id: str, verb: str, reason: str) -> Reply:
    return await visitor_api(request, csrf).post(f"/api/experiments/{quote(id, safe='')}/{verb}", {"reason": reason})


def _page(reply: Reply) -> str:
    return f"{HERE}/{reply.body['id']}" if reply.ok else HERE


def required_sample(tried: dict[str, Any]) -> float:
    """The threshold that the interval must clear: a share of good answers, or a difference between arms."""
    tolerance = float(tried["tolerance"])
    return 1 - tolerance if tried["type"] == "shadow" else -tolerance


def sequence_chart(looks: Sequence[dict[str, Any]], line: float, type: str) -> str:
    """A chart of the quality interval at each look, with the threshold `line`. Empty before the first look."""
    rows = [
        {"at": each["at"], **{name: float(each[name]) for name in ("value", "low", "high")}}
        for each in looks
        if each["count"]
    ]
    if not rows:
        return ""
    import altair  # noqa: PLC0415 -- heavy, and only pages of cost need it

    data = altair.InlineData(values=rows)
    title = "share that is as good" if type == "shadow" else "difference in quality"
    base = altair.Chart(data, width=640, height=240)
    x = altair.X("at:T", title=None, axis=altair.Axis(tickCount=6, labelOverlap=True))
    axis = altair.Axis(format="%" if type == "shadow" else "+%", tickCount=5)
    scale = altair.Scale(zero=False, nice=True)
    rule = altair.Chart(altair.InlineData(values=[{"line": line}])).mark_rule(color=COLOURS[1], strokeDash=[6, 4])
    layers = [
        base.mark_area(opacity=0.25, color=COLOURS[0], interpolate="step-after").encode(
            x=x, y=altair.Y("low:Q", title=title, axis=axis, scale=scale), y2="high:Q"
        ),
        base.mark_line(color=COLOURS[0], interpolate="step-after").encode(x=x, y="value:Q"),
        base.mark_point(color=COLOURS[0], size=18, filled=True).encode(x=x, y="value:Q"),
        rule.encode(y="line:Q"),
    ]
    if type != "shadow":
        layers.append(altair.Chart(altair.InlineData(values=[{"zero": 0}])).mark_rule(color=INK).encode(y="zero:Q"))
    return cost_charts.svg(altair.layer(*layers))
