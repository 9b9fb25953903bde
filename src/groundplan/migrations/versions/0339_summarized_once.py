"""Newest pages are summarized in one place: `0339_summarized_once.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
