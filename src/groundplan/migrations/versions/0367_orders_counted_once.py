"""Orders are counted as they go, and made once for each key: `0367_orders_counted_once.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
