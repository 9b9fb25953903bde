"""When a directory changed an address: `0170_addresses_by_directory.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
