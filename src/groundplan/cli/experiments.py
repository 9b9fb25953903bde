"""`groundplan experiments`: experiments with another deployment on live calls, and replays of stored calls on another
one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.keys import emit_effective
from groundplan.cli.option_groups import grouped
from groundplan.cli.options import HomeOption, JsonOption, WorkloadOption
from groundplan.cli.output import emit, table
from groundplan.core.errors import NotFound

app = command_group("Try another deployment: shadow, A/B, replay.")
ReasonOption = Annotated[str, typer.Option("--reason", "-m", help="Reason, kept in the audit log.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="ID of the experiment, from `list`.")]
WorkloadArgument = Annotated[str, typer.Argument(metavar="WORKLOAD", help="Workload whose calls are tried.")]
CandidateArgument = Annotated[str, typer.Argument(metavar="CANDIDATE", help="Deployment to try.")]
NONE = "There is no experiment. Start one with `groundplan experiments start`, or `replay` if calls are kept."


@app.command("list")
def list_all(workload: WorkloadOption = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List experiments: those that run or wait, then the others, newest first."""
    query = {"workload": workload} if workload else {}
    value = ControlClient.connect(home).get("/api/experiments", **query)
    rows = [
        (e["id"], e["state"] if not e["outcome"] else e["outcome"], e["workload"], e["name"], e["type"], e["candidate"],
         verdict_text(e))
        for e in value["experiments"]
    ]  # fmt: skip
    head = ("id", "state", "workload", "name", "type", "candidate", "result")
    emit(value, as_json, table(head, rows) if rows else NONE)


@app.command()
def show(id: IdArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show one experiment: quality, guards and segments with their intervals, and what it cost."""
    value = ControlClient.connect(home).get(f"/api/experiments/{id}")
    figures = value["figures"]
    lines = [f"{value['name']}: {value['candidate']} on {value['workload']} ({value['type']}), {value['state']}"]
    lines += [f"{value['outcome']}: {value['outcome_reason']}"] if value["outcome"] else [verdict_text(value)]
    lines += [value["error"]["hint"]] if value["error"] else []
    rows = [("quality", *_range(figures.get("quality")))]
    rows += [(f"quality of {name}", *_range(interval)) for name, interval in figures.get("segments", {}).items()]
    rows += [(interval["what"], *_range(interval)) for interval in figures.get("guards", {}).values()]
    lines.append(table(("measure", "value", "low", "high", "seen"), rows))
    pairs = figures.get("pairs") or {}
    if pairs.get("pairs"):
        agreed = f"{pairs['agreed']} of {pairs['reviewed']}" if pairs["reviewed"] else "unknown, none reviewed"
        left_out_note = f"; {figures['left']}" if figures["left"] else ""
        lines.append(f"{pairs['pairs']} pairs, {pairs['compared']} compared{left_out_note}; people agree: {agreed}")
    lines.append(f"Its own calls cost ${float(figures.get('spent_usd', 0)):.4f} of ${float(value['budget_usd']):.2f}.")
    emit(value, as_json, "\n".join(lines))


@dataclass(frozen=True, slots=True)
class Trial:
    """Options of an experiment: its type, share of calls, tolerances, judge, end and budget."""

    budget: Annotated[
        float,
        typer.Option(
            "--budget",
            min=0.000001,
            help="Most that the experiment's own calls may cost in USD; with --ab, the candidate's.",
        ),
    ]
    reason: ReasonOption
    name: Annotated[str | None, typer.Option("--name", help="Name of the experiment. Default: TYPE-CANDIDATE.")] = None
    ab: Annotated[
        bool, typer.Option("--ab", help="A/B test: show a share of callers the candidate's answers. Default: shadow.")
    ] = False
    judge: Annotated[str | None, typer.Option("--judge", help="Deployment that judges the answers (shadow only).")] = (
        None
    )
    share: Annotated[
        float, typer.Option("--share", min=0.0001, max=1, help="Share of the calls, or of the callers with --ab.")
    ] = 0.1
    by: Annotated[str, typer.Option("--by", help="Unit that is assigned to an arm: person or conversation.")] = "person"
    tolerance: Annotated[float | None, typer.Option("--tolerance", help="How much worse the candidate may be.")] = None
    until: Annotated[
        str | None, typer.Option("--until", help="Last day, such as 2026-12-31. Default: after 30 days.")
    ] = None

    def body(self, workload: str, candidate: str) -> dict[str, Any]:
        type = "ab" if self.ab else "shadow"
        return {
            "workload": workload, "candidate": candidate, "type": type, "name": self.name or f"{type}-{candidate}"[:63],
            "judge": self.judge, "share": self.share, "by": self.by, "tolerance": self.tolerance,
            "budget_usd": self.budget, "until": self.until, "reason": self.reason,
        }  # fmt: skip


@app.command()
@grouped
def start(
    workload: WorkloadArgument,
    candidate: CandidateArgument,
    trial: Trial,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try CANDIDATE on calls of WORKLOAD; in production somebody else must approve it first. Exits with 69 until every
    gateway has begun."""
    value = ControlClient.connect(home).post("/api/experiments", trial.body(workload, candidate))
    if value["state"] == "asked":
        text = f"experiment {value['id']} waits for somebody else with the duty product or business of {workload}"
        emit(value, as_json, text)
    else:
        emit_effective(f"experiment {value['id']} runs", value, as_json)


@app.command()
def approve(id: IdArgument, reason: ReasonOption = "", home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Approve an experiment that somebody else asked for. Exits with 69 until every gateway has begun."""
    value = ControlClient.connect(home).post(f"/api/experiments/{id}/approve", {"reason": reason})
    emit_effective(f"experiment {id} runs", value, as_json)


@app.command()
def refuse(id: IdArgument, reason: ReasonOption = "", home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Refuse an experiment that somebody asked for."""
    value = ControlClient.connect(home).post(f"/api/experiments/{id}/refuse", {"reason": reason})
    emit(value, as_json, f"experiment {id} is refused")


@app.command()
def stop(id: IdArgument, reason: ReasonOption = "", home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Stop an experiment now. Exits with 69 until every gateway has acknowledged it."""
    value = ControlClient.connect(home).post(f"/api/experiments/{id}/stop", {"reason": reason})
    emit_effective(f"experiment {id} has ended", value, as_json)


@app.command()
def replay(
    workload: WorkloadArgument,
    candidate: CandidateArgument,
    judge: Annotated[str, typer.Option("--judge", help="Deployment that judges the answers.")],
    budget: Annotated[float, typer.Option("--budget", min=0.000001, help="Most that the replay may cost, in USD.")],
    calls: Annotated[int, typer.Option("--calls", min=30, max=5000, help="Maximum number of kept calls.")] = 200,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay kept calls of WORKLOAD on CANDIDATE, and have both answers judged."""
    body = {"workload": workload, "candidate": candidate, "judge": judge, "budget_usd": budget, "calls": calls}
    value = ControlClient.connect(home).post("/api/replays", body)
    emit(
        value,
        as_json,
        f"replay {value['id']} has started; `groundplan experiments replays {value['id']}` shows its progress",
    )


@app.command()
def replays(
    id: Annotated[str | None, typer.Argument(help="ID of one replay. Default: all.")] = None,
    workload: WorkloadOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List replays and what they show."""
    client = ControlClient.connect(home)
    if id is not None:
        value = client.get(f"/api/replays/{id}")
        emit(value, as_json, "\n".join(_replay(value)))
        return
    value = client.get("/api/replays", **({"workload": workload} if workload else {}))
    rows = [
        (r["id"], r["state"], r["workload"], r["candidate"], (r["proposal"] or {}).get("text") or r["outcome"] or "")
        for r in value["replays"]
    ]
    text = table(("id", "state", "workload", "candidate", "result"), rows)
    emit(value, as_json, text if rows else "There is no replay. Start one with `groundplan experiments replay`.")


@app.command()
def review(
    id: Annotated[str, typer.Argument(metavar="ID", help="ID of the replay or experiment.")],
    call: Annotated[str, typer.Argument(metavar="CALL", help="ID of the judged call.")],
    as_good: Annotated[bool, typer.Option("--as-good/--worse", help="Your verdict on the candidate's answer.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give your own verdict on a judged call of a replay or an experiment."""
    client = ControlClient.connect(home)
    body, review = {"kept": as_good}, f"{call}/review"
    try:
        value = client.post(f"/api/replays/{id}/calls/{review}", body)
    except NotFound as error:
        if error.code != "replay_unknown":
            raise
        value = client.post(f"/api/experiments/{id}/pairs/{review}", body)
    emit(value, as_json, f"noted: the second answer to {call} is {'as good' if as_good else 'worse'}")


def verdict_text(value: dict[str, Any]) -> str:
    """What an experiment shows, in a line."""
    return str(value["outcome_reason"] or value["figures"].get("reason") or "nothing yet")


def _range(interval: dict[str, Any] | None) -> tuple[str, ...]:
    if not interval or not interval["count"]:
        return ("", "", "", "0")
    return (*(f"{interval[name]:+.1%}" for name in ("value", "low", "high")), str(interval["count"]))


def _replay(value: dict[str, Any]) -> list[str]:
    progress = (
        ", ".join(f"{count} {state}" for state, count in sorted(value["progress"].items())) or "no call sampled yet"
    )
    lines = [
        f"{value['candidate']} instead of {value['current']} for {value['workload']}: {value['state']} ({progress})"
    ]
    proposal = value["proposal"]
    if proposal:
        lines += [proposal["text"]]
        lines += [f"But {value['waits']}: no other one can begin before."] if value["waits"] else []
        lines.append(f"Judge and people: {proposal['agreement']['text']}.")
        lines.append(f"The judge contradicted itself on {proposal['contradicted']:.0%} of the pairs of this run.")
    elif value["outcome"]:
        lines.append(value["outcome"])
        lines += [value["error"]["hint"]] if value["error"] else []
    lines.append(f"It cost ${float(value['spent_usd']):.4f} of ${float(value['budget_usd']):.2f}.")
    return lines
