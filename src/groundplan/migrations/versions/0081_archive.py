"""Facts that leave for Parquet files: `0081_archive.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
