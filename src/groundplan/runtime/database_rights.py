"""Checks that a database can be used as it is: writable, with tables on which this login and its roles have their
rights. A restored dump may lack these rights: it contains no roles, and their names depend on the name of its database.

Creates nothing: `migrate` does.
"""

from __future__ import annotations

from typing import Any

import psycopg

from groundplan.core.database import role_name
from groundplan.core.errors import Denied, Unavailable


def check_writable(connection: psycopg.Connection[Any]) -> None:
    """Raises `Unavailable` (`database_read_only`)."""
    row = connection.execute("SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'").fetchone()
    standby, read_only = row or (False, False)
    if standby:
        raise Unavailable(
            "this PostgreSQL is a standby, which may not be written to",
            code="database_read_only",
            hint="Name its primary in GROUNDPLAN_DATABASE_URL; of several hosts there, target_session_attrs=read-write "
            "takes the one that may be written to.",
            retry_after=1.0,
        )
    if read_only:
        user, name = connection.info.user, connection.info.dbname
        raise Unavailable(
            f"{user} may only read in the database {name} (default_transaction_read_only)",
            code="database_read_only",
            hint="Managed services set that where the disk of PostgreSQL is full: make room there. Who else did tells "
            f"SELECT * FROM pg_db_role_setting; ALTER ROLE {user} RESET default_transaction_read_only takes it back.",
            retry_after=1.0,
        )


def check_rights(connection: psycopg.Connection[Any]) -> None:
    """Check that the tables, if there are any, belong to this login and that the roles may read them. Raises `Denied`
    (`database_rights`)."""
    user, name = connection.info.user, connection.info.dbname
    row = connection.execute(
        """SELECT o.rolname, o.rolsuper, pg_has_role(o.oid, 'USAGE'),
             coalesce(has_table_privilege(to_regrole(quote_ident(%s))::oid, c.oid, 'SELECT'), false),
             (SELECT min(left(r.rolname, -length('_control'))) FROM aclexplode(c.relacl) a
              JOIN pg_roles r ON r.oid = a.grantee WHERE r.rolname LIKE '%%\\_control')
           FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner WHERE c.oid = to_regclass('audit_entry')""",
        (role_name(name, "control"),),
    ).fetchone()
    if row is None:
        return
    owner, above_all, owned, readable, made_as = row
    whole = "Restore the dump anew, into an empty database, with its owners and privileges: without --no-owner and "
    whole += "--no-privileges, where the roles of the database are there already (docs/cli.md, On your own PostgreSQL)."
    if not owned:
        raise Denied(
            f"the tables of the database {name} belong to {owner}, not to {user}",
            code="database_rights",
            hint=whole if above_all else f"As an administrator, in {name}: REASSIGN OWNED BY {owner} TO {user};",
        )
    if readable:
        return
    if made_as:
        raise Denied(
            f"the database {name} was made under the name {made_as}, after which the roles are named that have rights "
            "in its tables",
            code="database_rights",
            hint=f"Give it that name: ALTER DATABASE {name} RENAME TO {made_as}; or restore it into a database of that "
            "name, on another server where this one has such.",
        )
    raise Denied(f"the roles of the database {name} have no rights in its tables", code="database_rights", hint=whole)
