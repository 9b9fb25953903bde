"""Tickets that calls worked on: `0240_tickets.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
