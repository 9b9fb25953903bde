"""The stream to a SIEM: `0078_siem.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
