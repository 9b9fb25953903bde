"""Experiments and replays: `0090_experiments.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
