"""Entries that are no calls are listed quickly: `0020_audit_pages.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
