"""Mail by SMTP: a sentence and a link to the console, where the recipient signs in and decides.

Mail is queued in the transaction of its event, and sent at least once, outside of any transaction, so that a slow
server holds no database connection. Without a server nothing is sent; the inbox of the console has the same content.
"""

from __future__ import annotations

import smtplib
import ssl
from datetime import timedelta
from email.message import EmailMessage
from urllib.parse import urlsplit

from groundplan.api.context import Services
from groundplan.api.mail import store as mail_store
from groundplan.api.mail.store import QueuedMail
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.core.settings import resolve_secret

SEND_SECONDS = 5.0
MAX_PER_ROUND = 50
TIMEOUT_SECONDS = 10.0
RETRY = timedelta(minutes=1)
MAX_SENDING_TIME = timedelta(minutes=5)
"""How long sending may take: after it the process that took the mail is assumed to be dead."""
RETENTION = timedelta(days=90)
UNSENT_RETENTION = timedelta(days=1)
"""How long mail is kept where no server is set: configuring one later must not send outdated mail."""
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def send_waiting(services: Services) -> int:
    """Send queued mail; returns how many. Failures are retried with increasing delays."""
    if services.settings.mail_url is None:
        with services.transaction() as conn:
            mail_store.forget_before(conn, services.clock.now() - UNSENT_RETENTION)
        return 0
    count = 0
    for _ in range(MAX_PER_ROUND):
        now = services.clock.now()
        with services.transaction() as conn:
            waiting = mail_store.take_next(conn, now, now + MAX_SENDING_TIME)
            if waiting is None:
                mail_store.forget_before(conn, now - RETENTION)
                return count
        problem = ""
        try:
            send_mail(services, waiting)
        except (OSError, smtplib.SMTPException, GroundplanError) as error:
            problem = f"{error.__class__.__name__}: {error}"[:300]
        with services.transaction() as conn:
            if problem:
                mail_store.mark_failed(conn, waiting.id, now + RETRY * (1 << min(waiting.tries, 10)), problem)
            else:
                mail_store.mark_sent(conn, waiting.id, now)
                count += 1
    return count


def send_mail(services: Services, waiting: QueuedMail) -> None:
    """Send one mail to the server. Raises `OSError`, `SMTPException`, `Invalid` (`mail_url`)."""
    url = urlsplit(services.settings.mail_url or "")
    if url.scheme not in ("smtp", "smtps") or not url.hostname:
        raise Invalid("GROUNDPLAN_MAIL_URL is not usable", code="mail_url", hint="Write smtps://HOST or smtp://HOST.")
    context = ssl.create_default_context()
    if url.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(url.hostname, url.port or 465, timeout=TIMEOUT_SECONDS, context=context)
    else:
        server = smtplib.SMTP(url.hostname, url.port or 587, timeout=TIMEOUT_SECONDS)
    with server:
        if url.scheme == "smtp" and url.hostname not in LOCAL_HOSTS:
            server.starttls(context=context)
        if services.settings.mail_login is not None:
            user, _, password = resolve_secret(services.settings.mail_login).partition(":")
            server.login(user, password)
        server.send_message(build_message(services, waiting))


def build_message(services: Services, waiting: QueuedMail) -> EmailMessage:
    """The mail as it is sent: plain text and a link, without anything that decides or tracks who opened it."""
    message = EmailMessage()
    message["From"] = services.settings.mail_from
    message["To"] = waiting.email
    lines = [one_line(line) for line in waiting.subject.splitlines()] or [""]
    message["Subject"] = lines[0]
    message["Message-ID"] = f"<{waiting.id}@groundplan>"
    base = services.settings.console_url or services.addresses().get("control", "http://localhost:8601")
    base = base.replace("127.0.0.1", "localhost")
    message.set_content(
        "\n".join(lines) + f"\n\n{base}{waiting.path}\n\n"
        "Opening this link decides nothing: sign in there with your passkey and decide on the page.\n"
    )
    return message


def one_line(text: str) -> str:
    """The text without line breaks, so that no part of it becomes a header."""
    return " ".join(text.split())[:200]
