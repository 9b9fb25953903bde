"""Erasing documents: `0052_erasure.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
