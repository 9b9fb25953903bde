"""Links open no document while it is restricted: `0256_links_of_restricted.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
