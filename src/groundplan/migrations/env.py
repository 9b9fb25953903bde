"""Alembic's entry: runs the migrations on the connection that `groundplan.runtime.migrate` hands over.

It reads no configuration file and knows no address, so `alembic` on the command line is not supported.
"""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
