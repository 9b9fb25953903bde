"""Exceptions, held calls and what guardrails found: `0075_guard.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
