"""The serving model calibrated by the gateways' facts, for deployments on hardware of their site.

Concurrency is by Little's law: the summed time of a day's answers divided by the busy hours of the day.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.ledger import daily_store
from groundplan.placement.serving.calibrate import ObservedDay, calibrate
from groundplan.placement.serving.fitted import shipped_model
from groundplan.placement.serving.model import Engine, Serving, Setting, find_hardware
from groundplan.placement.terms.facts import Company, DeploymentFacts, OwnSpeed
from groundplan.placement.terms.network import shape_for

DAYS = 28
BUSY_MS = 8 * 3_600_000
"""The hours of a day in which calls are assumed to come."""


def calibration_rows(conn: Connection[Any], now: datetime, company: Company) -> list[dict[str, Any]]:
    """Each deployment with its factors, and the model's median error before and with them."""
    day_rows = daily_store.deployment_days(conn, now - timedelta(days=DAYS), now)
    calibrated = []
    for name, facts in sorted(company.deployments.items()):
        days = [row for row in day_rows if row["deployment"] == name]
        calibration = _calibration_row(company, facts, days) if facts.hardware and days else None
        if calibration is not None:
            calibrated.append(calibration)
    return calibrated


def calibrated_speeds(conn: Connection[Any], now: datetime, company: Company) -> dict[tuple[str, str], OwnSpeed]:
    """(model, hardware) -> calibrated speed for plans, from the deployment with the most days."""
    speeds: dict[tuple[str, str], OwnSpeed] = {}
    for row in sorted(calibration_rows(conn, now, company), key=lambda item: (item["days"], item["deployment"])):
        times = row["corrected"]["first_token_ms"]
        spread = times["high"] / max(times["middle"], 0.01)
        speeds[row["model"], row["hardware"]] = OwnSpeed(row["first_token_factor"], row["per_token_factor"], spread)
    return speeds


def _calibration_row(company: Company, facts: DeploymentFacts, days: list[dict[str, Any]]) -> dict[str, Any] | None:
    machine, model = find_hardware(facts.hardware or ""), company.models.get(facts.model)
    shape = None if model is None else shape_for(model)
    if machine is None or shape is None or model is None:
        return None
    settings = [
        Setting(
            shape, machine, model.precision, "vllm", max(1, round(row["prompt"])), max(1, round(row["output"])),
            max(1.0, row["busy_ms"] / BUSY_MS), Engine(max(1, round(facts.units))),
        )
        for row in days
    ]  # fmt: skip
    predicted = shipped_model().predict_many(settings)
    observations = [
        ObservedDay(row["day"], row["first_token_ms"], max(row["per_token_ms"], 0.01), guess)
        for row, guess in zip(days, predicted, strict=True)
    ]
    fit = calibrate(observations)
    if fit is None:
        return None
    corrected = fit.apply(predicted[-1])
    return {
        "deployment": facts.name,
        "model": facts.model,
        "hardware": machine.name,
        "days": fit.days,
        "first_token_factor": round(fit.first_token, 4),
        "per_token_factor": round(fit.per_token, 4),
        "error_before": [round(value, 4) for value in fit.before],
        "error_after": [round(value, 4) for value in fit.after],
        "basis": predicted[-1].basis,
        "predicted": _times_json(predicted[-1]),
        "corrected": _times_json(corrected),
    }


def _times_json(served: Serving) -> dict[str, dict[str, float]]:
    """Milliseconds, with the 90 % interval."""
    return {
        name: {"middle": round(times.middle, 2), "low": round(times.low, 2), "high": round(times.high, 2)}
        for name, times in (("first_token_ms", served.first_token), ("per_token_ms", served.per_token))
    }
