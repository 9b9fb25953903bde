"""The embedded model as a process: SmolLM2-135M-Instruct behind llama.cpp's own OpenAI-compatible server.

It listens on a free port of 127.0.0.1, asks for a bearer token of its own making, and announces itself as `embedded`
once the model has answered a question. One request is computed at a time, by one thread, the same for the same input.
It does not meter, limit or log requests: the gateway in front of it does.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundplan.core.endpoints import announce_retrying, withdraw
from groundplan.core.errors import GroundplanError, Unavailable
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.runtime import openmp
from groundplan.runtime.models import SMOLLM2, ensure

NAME = "embedded"
CONTEXT_TOKENS = 4096
DEFAULT_OUTPUT_TOKENS = 512
"""Cap where a request gives none; the gateway always gives one."""

_STOPPING = {signal.SIGTERM, signal.SIGINT}


def parameters(model: Path, token: str) -> Any:
    """The settings of llama.cpp's server for a model file: small, quiet, deterministic, loopback only."""
    import xllamacpp  # noqa: PLC0415 -- it loads only where OpenMP does, see `openmp`

    wanted = xllamacpp.CommonParams()
    wanted.model.path = str(model)
    wanted.model_alias = {SMOLLM2.name}
    wanted.hostnames = ["127.0.0.1"]
    wanted.port = 0
    wanted.api_keys = [token]
    wanted.ui = False
    wanted.endpoint_slots = False
    wanted.endpoint_props = False
    # each open connection keeps one of these, idle or not
    wanted.n_threads_http = 64
    wanted.n_ctx = CONTEXT_TOKENS
    wanted.n_parallel = 1
    wanted.n_gpu_layers = 0
    wanted.n_predict = DEFAULT_OUTPUT_TOKENS
    wanted.cpuparams.n_threads = 1
    wanted.cpuparams_batch.n_threads = 1
    wanted.sampling.temp = 0.0
    wanted.sampling.seed = 1
    # a reused prefix is computed in other batches, and so may round to another token
    wanted.cache_prompt = False
    wanted.cache_ram_mib = 0
    wanted.offline = True
    wanted.verbosity = 1
    return wanted


def start(model: Path, token: str) -> tuple[Any, str]:
    """A running server and its base URL (ending in /v1), after the model has answered once.

    Raises `Unavailable` (embedded_model) where llama.cpp cannot load the model or it does not answer.
    """
    import xllamacpp  # noqa: PLC0415

    try:
        server = xllamacpp.Server(parameters(model, token))
        reply = server.handle_chat_completions({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1})
    except (RuntimeError, ValueError, OSError) as error:
        raise Unavailable(
            f"the embedded model cannot be loaded: {error}",
            code="embedded_model",
            hint="See HOME/logs/embedded.log; it needs about 300 MB of free memory.",
        ) from error
    if "choices" not in reply:
        raise Unavailable(
            "the embedded model does not answer", code="embedded_model", hint="See HOME/logs/embedded.log."
        )
    return server, f"{server.listening_address}/v1"


def serve(home: Home, models: Path) -> None:
    """Load the model, announce it, and serve until SIGTERM or SIGINT."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    token = secrets.token_urlsafe(32)
    server, url = start(ensure(models, SMOLLM2.name) / "model.gguf", token)
    announce_retrying(home, NAME, url, token, over := threading.Event())
    signal.sigwait(_STOPPING)
    over.set()
    withdraw(home, NAME)
    # llama.cpp finishes a running answer before it stops; nobody is there to read it
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if server is not None else 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m groundplan.runtime.embedded --home HOME`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="groundplan.runtime.embedded", description=__doc__)
    parser.add_argument("--home", type=Path, help="folder of this installation (default: GROUNDPLAN_HOME)")
    given = parser.parse_args(arguments)
    settings = load_settings()
    settings = replace(settings, home=(given.home or settings.home).absolute())
    try:
        again = ("--home", str(settings.home))
        openmp.restart_with(Home(settings.home).run / "lib", "groundplan.runtime.embedded", again)
        serve(Home(settings.home), settings.models)
    except GroundplanError as error:
        sys.stderr.write(f"embedded: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
