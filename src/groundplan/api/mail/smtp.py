"""Mail by SMTP: a sentence and a link to the console, never a decision: who opens it still signs in and decides there.

Queued in the transaction of what it tells, and handed over at least once, outside of any: a server that is slow takes
no connection of the database away. Where no server is set, nothing is sent; the inbox of the console tells the same.
"""

from __future__ import annotations

import smtplib
import ssl
from datetime import timedelta
from email.message import EmailMessage
from urllib.parse import urlsplit

from groundplan.api.context import Services
from groundplan.api.mail import store as mail_store
from groundplan.api.mail.store import Waiting
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.core.settings import resolve_secret

SEND_SECONDS = 5.0
AT_ONCE = 50
TIMEOUT = 10.0
RETRY = timedelta(minutes=1)
LONGEST = timedelta(minutes=5)
"""That a mail may be on its way: after it whoever took it is taken to be gone."""
KEPT = timedelta(days=90)
UNSENT = timedelta(days=1)
"""Where no mail is set up, what is older is forgotten: whoever sets it up later sends nobody what was true long ago."""
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def send_waiting(services: Services) -> int:
    """Hand over what waits; how many were. What fails is tried again later and later."""
    if services.settings.mail_url is None:
        with services.transaction() as conn:
            mail_store.forget(conn, services.clock.now() - UNSENT)
        return 0
    count = 0
    for _ in range(AT_ONCE):
        now = services.clock.now()
        with services.transaction() as conn:
            waiting = mail_store.take(conn, now, now + LONGEST)
            if waiting is None:
                mail_store.forget(conn, now - KEPT)
                return count
        problem = ""
        try:
            hand_over(services, waiting)
        except (OSError, smtplib.SMTPException, GroundplanError) as error:
            problem = f"{error.__class__.__name__}: {error}"[:300]
        with services.transaction() as conn:
            if problem:
                mail_store.failed(conn, waiting.id, now + RETRY * (1 << min(waiting.tries, 10)), problem)
            else:
                mail_store.sent(conn, waiting.id, now)
                count += 1
    return count


def hand_over(services: Services, waiting: Waiting) -> None:
    """One mail to the server. Raises `OSError`, `SMTPException`, `Invalid` (`mail_url`)."""
    url = urlsplit(services.settings.mail_url or "")
    if url.scheme not in ("smtp", "smtps") or not url.hostname:
        raise Invalid("GROUNDPLAN_MAIL_URL is not usable", code="mail_url", hint="Write smtps://HOST or smtp://HOST.")
    context = ssl.create_default_context()
    if url.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(url.hostname, url.port or 465, timeout=TIMEOUT, context=context)
    else:
        server = smtplib.SMTP(url.hostname, url.port or 587, timeout=TIMEOUT)
    with server:
        if url.scheme == "smtp" and url.hostname not in LOCAL:
            server.starttls(context=context)
        if services.settings.mail_login is not None:
            user, _, password = resolve_secret(services.settings.mail_login).partition(":")
            server.login(user, password)
        server.send_message(message(services, waiting))


def message(services: Services, waiting: Waiting) -> EmailMessage:
    """The mail as it is sent: plain text, a link, and nothing that decides or counts who opened it."""
    made = EmailMessage()
    made["From"] = services.settings.mail_from
    made["To"] = waiting.email
    lines = [one_line(line) for line in waiting.subject.splitlines()] or [""]
    made["Subject"] = lines[0]
    made["Message-ID"] = f"<{waiting.id}@groundplan>"
    base = services.settings.console_url or services.addresses().get("control", "http://localhost:8601")
    base = base.replace("127.0.0.1", "localhost")
    made.set_content(
        "\n".join(lines) + f"\n\n{base}{waiting.path}\n\n"
        "Opening this link decides nothing: sign in there with your passkey and decide on the page.\n"
    )
    return made


def one_line(text: str) -> str:
    """Without line ends, so that nothing in it becomes a header."""
    return " ".join(text.split())[:200]
