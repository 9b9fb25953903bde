"""The database of one `up`: embedded and supervised, or somebody else's; at this program's schema either way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from groundplan.core.database import database_url, dsn_parameters, external_dsn, role_name
from groundplan.core.home import Home
from groundplan.core.settings import Settings
from groundplan.runtime.migrate import check_role, migrate
from groundplan.runtime.postgres import EmbeddedPostgres, connection_settings
from groundplan.runtime.supervisor import Supervisor


def start_database(
    supervisor: Supervisor, settings: Settings, progress: Callable[[str], None], workers: int = 1
) -> None:
    """Make the database answer at this program's schema; `supervisor` keeps the embedded server, which has room for so
    many gateway workers, from now on.

    Raises what `EmbeddedPostgres`, `migrate` and `check_role` raise. `database_url(home, settings, role)` holds
    afterwards.
    """
    home = supervisor.home
    if settings.database_url is None:
        server = EmbeddedPostgres(home, tuning=connection_settings(workers), progress=progress)
        supervisor.on_closed(server.close)
        server.open()
        supervisor.start(server.process())
        server.prepare()
        server.on_moved = supervisor.request_reload  # by which all who use it start anew
    migrate(database_url(home, settings, "owner"), progress=progress)
    if settings.database_url is not None:
        name = str(dsn_parameters(external_dsn(settings.database_url))["dbname"])
        check_role(database_url(home, settings, "search"), role_name(name, "search"))


@contextmanager
def running_database(
    home: Home, settings: Settings, progress: Callable[[str], None]
) -> Iterator[EmbeddedPostgres | None]:
    """The database for a command that needs it whether `up` runs or not: an embedded server that is down is started
    for as long as this lasts. Yields that server, or None where it runs already or is external. Does not migrate.
    """
    server = None if settings.database_url is not None else EmbeddedPostgres(home, progress=progress)
    if server is None or server.is_running():
        yield None
        return
    with server:
        server.start()
        yield server
