"""Responses that are made in the background: `0414_background_responses.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
