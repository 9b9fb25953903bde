"""The one settings object; the environment is read here and nowhere else.

Command-line options override these (the CLI does that). Secrets are not settings: they are referenced (`env:NAME`,
`file:PATH`) and resolved by `resolve_secret` at the moment of use, never stored or shown.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

from groundplan.core.errors import Invalid

DEFAULT_PORT = 8600
DEFAULT_CONTROL_PORT = 8601
RELOAD_DRAIN_SECONDS = 600.0
PREFIX = "GROUNDPLAN_"
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy", "socks_proxy"})
_PROVIDER_PREFIXES = (
    "ANTHROPIC_", "ANY_LLM_", "AZURE_", "CO_API_", "COHERE_", "GEMINI_", "GOOGLE_API_KEY", "GOOGLE_GEMINI_",
    "GOOGLE_GENAI_", "GOOGLE_VERTEX_", "GROQ_", "MISTRAL_", "OLLAMA_", "OPENAI_",
)  # fmt: skip
"""Prefixes of environment variables that providers' client libraries read. Not among them: a machine's cloud identity
(AWS's, and Google's application default credentials), which is used where no key is declared."""
_hidden_variables: dict[str, str] = {}
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
_THREADS_OF_PRODUCTS = "OPENBLAS_NUM_THREADS"
_BARE = frozenset({"PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"})
_BARE_OF = ("PYTHON", "LC_", "OMP_", "OPENBLAS_")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings from the environment, which a process needs before it reads anything else."""

    home: Path
    """Keys, journal, audit tiles, database and logs of one installation. GROUNDPLAN_HOME, default ./.groundplan."""
    workspace: Path | None
    """Folder of declarations. GROUNDPLAN_WORKSPACE, default: none."""
    database_url: str | None
    """DSN of PostgreSQL >= 16 with pgvector, or `file:PATH` of a file with it; None means the embedded server.
    GROUNDPLAN_DATABASE_URL."""
    url: str | None
    """Address of the control API for commands; None means: find it through HOME. GROUNDPLAN_URL."""
    token: str | None
    """Bearer token for the control API; None means HOME/operator.token. GROUNDPLAN_TOKEN."""
    models: Path
    """Where downloaded model files are kept, shared by all HOMEs of a user. GROUNDPLAN_MODELS."""
    metrics_token: str | None = None
    """Secret reference of a token that may read /metrics from elsewhere. GROUNDPLAN_METRICS_TOKEN."""
    otlp_url: str | None = None
    """Where traces go as OTLP over HTTP, such as `http://collector:4318/v1/traces`; None: nowhere.
    GROUNDPLAN_OTLP_URL."""
    otlp_headers: str | None = None
    """Secret reference of header lines (`name: value`) for it. GROUNDPLAN_OTLP_HEADERS."""
    host: str = "127.0.0.1"
    """Address that the gateway listens on; others than this machine's own need TLS. GROUNDPLAN_HOST."""
    tls_cert: Path | None = None
    """Certificate chain of the gateway, PEM; looked at again when it changes. GROUNDPLAN_TLS_CERT."""
    tls_key: Path | None = None
    """Its private key. GROUNDPLAN_TLS_KEY."""
    tls_client_ca: Path | None = None
    """Callers must show a certificate that chains to one of these. GROUNDPLAN_TLS_CLIENT_CA."""
    drain_seconds: float = 15.0
    """How long running answers may go on after a stop. GROUNDPLAN_DRAIN_SECONDS."""
    reload_drain_seconds: float = RELOAD_DRAIN_SECONDS
    """How long they may go on after a reload, beside the new workers. GROUNDPLAN_RELOAD_DRAIN_SECONDS."""
    request_memory: int = 256 << 20
    """Most bytes that one gateway worker holds of request bodies, and as many again of large responses that are not
    streamed. GROUNDPLAN_REQUEST_MEMORY, in MiB."""
    cache_memory: int = 256 << 20
    """Most bytes of the answer cache of one gateway worker. GROUNDPLAN_CACHE_MEMORY, in MiB."""
    console_url: str | None = None
    """Where people reach the console from other machines, such as `https://ai.acme.example`; passkeys are bound to its
    domain. A proxy with TLS passes it on to the control port, which listens on this machine only. None: only
    `localhost`. GROUNDPLAN_CONSOLE_URL."""
    embedding_precision: str = "float32"
    """Precision of the local embedding model: `float32`, or `bfloat16`, which is faster with almost the same results.
    GROUNDPLAN_EMBEDDING_PRECISION."""
    oidc_issuer: str | None = None
    """The company's own sign-in (OpenID Connect), such as `https://login.acme.example`. GROUNDPLAN_OIDC_ISSUER."""
    oidc_client: str | None = None
    """Client id of this installation there. GROUNDPLAN_OIDC_CLIENT."""
    oidc_secret: str | None = None
    """Secret reference of the client secret. GROUNDPLAN_OIDC_SECRET."""
    oidc_trust_email: bool = False
    """Treat addresses as verified even without `email_verified`; only for providers where people cannot set their own
    address. GROUNDPLAN_OIDC_TRUST_EMAIL, `yes`."""
    mail_url: str | None = None
    """The mail server: `smtps://HOST`, or `smtp://HOST:587`, which must offer STARTTLS unless it is this machine. None:
    no mail is sent. GROUNDPLAN_MAIL_URL."""
    mail_from: str = "groundplan@localhost"
    """Sender of mail. GROUNDPLAN_MAIL_FROM."""
    mail_login: str | None = None
    """Secret reference of `user:password` for it. GROUNDPLAN_MAIL_LOGIN."""
    siem_url: str | None = None
    """Where security events go as OCSF: `https://HOST/PATH`, `syslog+tls://HOST:6514`. None: nowhere.
    GROUNDPLAN_SIEM_URL."""
    siem_token: str | None = None
    """Secret reference of a bearer token for it. GROUNDPLAN_SIEM_TOKEN."""
    archive_url: str | None = None
    """Where facts older than the hot window are archived as Parquet, and later the audit entries of their calls: a
    folder or a URL that fsspec knows, such as `s3://bucket/facts`. None: they stay in the database.
    GROUNDPLAN_ARCHIVE_URL."""
    archive_days: int = 400
    """Length of the hot window. GROUNDPLAN_ARCHIVE_DAYS."""
    witnesses: tuple[str, ...] = ()
    """Witnesses that co-sign the audit log, each `URL KEY` as `groundplan-witness` prints it. GROUNDPLAN_WITNESSES,
    separated by commas."""


VARIABLE_NAMES = tuple(each.name.upper() for each in fields(Settings))
"""Names of the variables, without `PREFIX`."""


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from the process environment (or the given mapping)."""
    env = os.environ if environment is None else environment
    workspace = env.get("GROUNDPLAN_WORKSPACE")
    cache = Path(env.get("XDG_CACHE_HOME") or Path(env.get("HOME") or "/var/tmp") / ".cache")
    return Settings(
        home=Path(env.get("GROUNDPLAN_HOME") or ".groundplan").absolute(),
        workspace=Path(workspace).absolute() if workspace else None,
        database_url=env.get("GROUNDPLAN_DATABASE_URL") or None,
        url=env.get("GROUNDPLAN_URL") or None,
        token=env.get("GROUNDPLAN_TOKEN") or None,
        models=Path(env.get("GROUNDPLAN_MODELS") or cache / "groundplan" / "models").absolute(),
        metrics_token=env.get("GROUNDPLAN_METRICS_TOKEN") or None,
        otlp_url=env.get("GROUNDPLAN_OTLP_URL") or None,
        otlp_headers=env.get("GROUNDPLAN_OTLP_HEADERS") or None,
        embedding_precision=env.get("GROUNDPLAN_EMBEDDING_PRECISION") or "float32",
        host=env.get("GROUNDPLAN_HOST") or "127.0.0.1",
        tls_cert=_path(env, "GROUNDPLAN_TLS_CERT"),
        tls_key=_path(env, "GROUNDPLAN_TLS_KEY"),
        tls_client_ca=_path(env, "GROUNDPLAN_TLS_CLIENT_CA"),
        drain_seconds=_number(env, "GROUNDPLAN_DRAIN_SECONDS", 15.0, (0, 86_400), "seconds, such as 600"),
        reload_drain_seconds=_number(
            env, "GROUNDPLAN_RELOAD_DRAIN_SECONDS", RELOAD_DRAIN_SECONDS, (0, 86_400), "seconds, such as 600"
        ),
        request_memory=int(_number(env, "GROUNDPLAN_REQUEST_MEMORY", 256, (1, 1 << 20), "MiB, such as 512")) << 20,
        cache_memory=int(_number(env, "GROUNDPLAN_CACHE_MEMORY", 256, (1, 1 << 20), "MiB, such as 512")) << 20,
        console_url=_console_url(env.get("GROUNDPLAN_CONSOLE_URL")),
        oidc_issuer=env.get("GROUNDPLAN_OIDC_ISSUER") or None,
        oidc_client=env.get("GROUNDPLAN_OIDC_CLIENT") or None,
        oidc_secret=env.get("GROUNDPLAN_OIDC_SECRET") or None,
        oidc_trust_email=_flag(env, "GROUNDPLAN_OIDC_TRUST_EMAIL"),
        mail_url=env.get("GROUNDPLAN_MAIL_URL") or None,
        mail_from=env.get("GROUNDPLAN_MAIL_FROM") or "groundplan@localhost",
        mail_login=env.get("GROUNDPLAN_MAIL_LOGIN") or None,
        siem_url=env.get("GROUNDPLAN_SIEM_URL") or None,
        siem_token=env.get("GROUNDPLAN_SIEM_TOKEN") or None,
        archive_url=_store_url(env.get("GROUNDPLAN_ARCHIVE_URL")),
        archive_days=int(_number(env, "GROUNDPLAN_ARCHIVE_DAYS", 400, (7, 36_600), "days, such as 400")),
        witnesses=tuple(one.strip() for one in env.get("GROUNDPLAN_WITNESSES", "").split(",") if one.strip()),
    )


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """Names of environment variables that start with `PREFIX` but are no settings."""
    found = os.environ if environment is None else environment
    ours = {f"{PREFIX}{word}" for word in VARIABLE_NAMES}
    return sorted(name for name in found if name.startswith(PREFIX) and name not in ours)


def _console_url(text: str | None) -> str | None:
    """Validate that the address is https and has no path; None where it is not set."""
    if not text:
        return None
    found = urlsplit(text)
    if found.scheme != "https" or not found.hostname or found.path.strip("/") or found.query or found.username:
        raise Invalid(
            "GROUNDPLAN_CONSOLE_URL is not usable",
            code="setting_invalid",
            hint="Write https://HOST: other machines need TLS, and passkeys a domain.",
        )
    return f"https://{found.netloc.lower()}"


def _store_url(text: str | None) -> str | None:
    """Make a folder absolute, so that it does not depend on where a command is started; a URL stays."""
    if not text:
        return None
    return text if "://" in text or "::" in text else str(Path(text).absolute())


def _path(env: Mapping[str, str], name: str) -> Path | None:
    value = env.get(name)
    return Path(value).absolute() if value else None


def _flag(env: Mapping[str, str], name: str) -> bool:
    """Parse `yes` or `no`. Other words, such as `true`, are refused instead of being taken as `no`."""
    said = env.get(name) or "no"
    if said not in ("yes", "no"):
        raise Invalid(f"{name} is not usable", code="setting_invalid", hint="Write yes, or leave it out.")
    return said == "yes"


def _number(env: Mapping[str, str], name: str, default: float, within: tuple[int, int], unit: str) -> float:
    least, most = within
    try:
        found = float(env.get(name) or default)
    except ValueError:
        found = float("nan")
    if not least <= found <= most:
        raise Invalid(f"{name} is not usable", code="setting_invalid", hint=f"Write {least} to {most} {unit}.")
    return found


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a child process: this process's plus `extra`.

    Bytecode is always cached where possible, since compiling a worker is most of its start. By default numpy multiplies
    on one thread: several would spin while they wait for each other.
    """
    kept = {name: value for name, value in os.environ.items() if name != _NO_BYTECODE}
    return {_THREADS_OF_PRODUCTS: "1", **kept, **(extra or {})}


def minimal_environment() -> dict[str, str]:
    """The environment for a child process that only computes: paths of programs and libraries, without anything that
    may be a secret."""
    return {
        name: value
        for name, value in os.environ.items()
        if (name in _BARE or name.startswith(_BARE_OF)) and name != _NO_BYTECODE
    }


def mimalloc_environment() -> dict[str, str]:
    """Environment variables that make a child process use mimalloc, where this Python has it (from 3.13 on). Python's
    own allocator does not return the memory of many concurrent calls, since a few objects between them live on."""
    ours = "PYTHONMALLOC" not in os.environ and sysconfig.get_config_var("WITH_MIMALLOC")
    return {"PYTHONMALLOC": "mimalloc"} if ours else {}


def disable_pydantic_plugins() -> None:
    """Disable pydantic's plugins in this process and its children: looking for them reads the metadata of every
    installed distribution, a tenth of the CPU time of a start."""
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"


def clear_libpq_formats() -> None:
    """Remove libpq's variables for formats of dates and times, here and for child processes: libpq would send them to
    every server, overriding the options of a DSN."""
    for name in ("PGTZ", "PGDATESTYLE", "PGGEQO"):
        os.environ.pop(name, None)


def clear_proxies() -> None:
    """Remove proxy variables: third-party libraries would use them whatever is declared."""
    for name in [name for name in os.environ if name.lower() in _PROXIES]:
        del os.environ[name]


def hide_provider_variables() -> None:
    """Hide variables that third-party libraries would read although they are not declared: further headers of each
    request, another kind of authentication, a log level that reveals prompts, or passwords for any host (`~/.netrc`).
    `resolve_secret` still finds them."""
    for name in [name for name in os.environ if name.startswith(_PROVIDER_PREFIXES)]:
        _hidden_variables[name] = os.environ.pop(name)
    os.environ["NETRC"] = os.devnull


def resolve_secret(reference: str) -> str:
    """Resolve `env:NAME` or `file:PATH` to the secret, without surrounding white space.

    Raises `Invalid` with the reference (never the value) where it is malformed, unset, unreadable or empty.
    """
    scheme, _, name = reference.partition(":")
    if scheme == "env" and name:
        value = os.environ.get(name) or _hidden_variables.get(name, "")
    elif scheme == "file" and name:
        try:
            value = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid(
                f"the secret {reference} cannot be read: {error.__class__.__name__}",
                code="secret_unreadable",
                hint="Check that the file exists and that this user may read it.",
            ) from error
    else:
        raise Invalid(
            "a secret must be a reference", code="secret_syntax", hint="Write env:NAME or file:/path, never the secret."
        )
    value = value.strip()
    if not value:
        hint = f"Write it into {name}." if scheme == "file" else f"Set {name} where `groundplan up` starts."
        raise Invalid(f"the secret {reference} is empty or not set", code="secret_missing", hint=hint)
    return value
