"""The pictures of the README, taken from a real demo: `python -m groundplan.testing.screenshots DIR`.

It starts its own installation on free ports in a temporary folder, where the example company's people approve what
waits, lets the traffic flow, and takes the cloud down for the ground plan. Nothing is drawn or edited by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.text import Text

from groundplan.testing.browser import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTH = 1280
PLAN_HEIGHT = 1000
APPROVAL_SECONDS = 120
TRAFFIC_MILLISECONDS = 45_000
OUTAGE_MILLISECONDS = 9_000
EXAMPLE = Path("examples/company")
DECLARED = "fallbacks: [llama-rack, smollm-rack]"
CHANGED = "fallbacks: [gpt-us, llama-rack]"
"""A change that `plan` refuses: the cheaper model is outside the EU."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A running installation."""

    home: Path
    control: int

    @property
    def url(self) -> str:
        return f"http://localhost:{self.control}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the pictures of the README.")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="groundplan-pictures-") as scratch:
        with run_demo(Path(scratch) / "home") as stack, chromium() as browser:
            take_all(stack, browser, options.folder, Path(scratch))
    return 0


@contextlib.contextmanager
def run_demo(home: Path) -> Iterator[Stack]:
    """`groundplan up --demo --tour` with the example company, until the block ends."""
    gateway, control = _free_port(), _free_port()
    process = subprocess.Popen(
        [
            *_command("up", "--workspace", str(EXAMPLE), "--home", str(home), "--demo", "--tour"),
            *("--port", str(gateway), "--control-port", str(control)),
        ],
        stdout=subprocess.PIPE,
        stderr=sys.stderr,
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline().startswith(b"ready "):
            raise RuntimeError("`groundplan up` did not become ready")
        yield Stack(home, control)
    finally:
        process.terminate()
        process.wait(60)


def take_all(stack: Stack, browser: Browser, folder: Path, scratch: Path) -> None:
    """All pictures, in an order in which each act's traces are still fresh."""
    with _page(stack, browser) as page:
        page.goto(_login(stack))
        wait_until_approved(page)
        _act(page, "budget-race")
        page.wait_for_timeout(TRAFFIC_MILLISECONDS)
        _act(page, "ask-as")
        page.screenshot(path=folder / "two-people.png", full_page=True)
        state = page.context.storage_state()
        _act(page, "cloud-down")
        page.wait_for_timeout(OUTAGE_MILLISECONDS)
        _ground_plan(page, folder / "ground-plan-light.png")
        with _page(stack, browser, "dark", state) as dark:
            dark.goto("/")
            _ground_plan(dark, folder / "ground-plan-dark.png")
        page.goto(f"/calls/{_call_that_moved(page)}")
        page.screenshot(path=folder / "receipt.png", full_page=True)
        _act(page, "cloud-up")
        page.goto("/workloads/staff-assistant")
        _top(page, "#readiness", folder / "workload.png")
        page.set_content(plan_html(stack, scratch / "workspace"))
        page.locator("pre").screenshot(path=folder / "plan.png")


def wait_until_approved(page: Page) -> None:
    """Until the example company's people have approved what the first start declares. Raises `RuntimeError`."""
    end = time.monotonic() + APPROVAL_SECONDS
    while pending := _api(page, "/api/changes?state=pending")["changes"]:
        if time.monotonic() >= end:
            raise RuntimeError(f"still not approved: {', '.join(each['summary']['subject'] for each in pending)}")
        page.wait_for_timeout(1000)


def plan_html(stack: Stack, workspace: Path) -> str:
    """What `groundplan plan` prints for a changed copy of the example, as a page."""
    shutil.copytree(EXAMPLE, workspace)
    declared = workspace / "workloads" / "staff-assistant.yaml"
    text = declared.read_text()
    if DECLARED not in text:
        raise RuntimeError(f"{declared.name} no longer has {DECLARED}")
    declared.write_text(text.replace(DECLARED, CHANGED))
    command = _command("plan", "--workspace", str(workspace), "--home", str(stack.home))
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    shown = Text("$ groundplan plan\n" + told.stdout)
    shown.highlight_regex(r"(?m)^\$ .*$", "bold")
    shown.highlight_regex(r"(?m)^> .*$", "#5cc7aa")
    shown.highlight_regex(r"(?m)^- .*$", "#8fb8de")
    shown.highlight_regex(r"(?m)^refused: .*$", "bold #ff8a80")
    shown.highlight_regex(r"outside EU", "#ff8a80")
    console = Console(record=True, width=118, file=(workspace / "plan.txt").open("w"))
    console.print(shown)
    style = "margin:0;padding:20px 26px;background:#12181f;color:#e8edf2;font:14px/1.45 'DejaVu Sans Mono',monospace;"
    body = console.export_html(inline_styles=True, code_format="{code}")
    return f'<body style="margin:0"><pre style="{style}width:1080px;white-space:pre-wrap">{body}</pre></body>'


def _ground_plan(page: Page, path: Path) -> None:
    page.goto("/")
    _top(page, "svg.plan", path)


def _top(page: Page, selector: str, path: Path) -> None:
    """A page from its top to the end of one part."""
    bottom = page.locator(selector).evaluate("part => part.getBoundingClientRect().bottom + window.scrollY")
    page.screenshot(path=path, full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": bottom + 4})


def _call_that_moved(page: Page) -> str:
    """A call of the outage whose first attempt failed and whose second answered."""
    for deployment in ("llama-rack", ""):
        calls = _api(
            page, f"/api/calls?workload=staff-assistant&status=ok&limit=100&deployment={deployment}".rstrip("=")
        )
        for row in calls["calls"]:
            call = _api(page, f"/api/calls/{row['id']}")
            if len(call["attempts"]) > 1 and call["passages"] and call["audit"]:
                return str(call["id"])
    raise RuntimeError("no call was moved to the fallback")


def _api(page: Page, path: str) -> Any:
    return page.evaluate("path => fetch(path).then(answer => answer.json())", path)


def _act(page: Page, name: str) -> None:
    page.goto("/")
    with page.expect_navigation():
        page.click(f'form[action="/do/demo/{name}"] button')


@contextlib.contextmanager
def _page(
    stack: Stack, browser: Browser, scheme: Literal["light", "dark"] = "light", state: Any = None
) -> Iterator[Page]:
    context = browser.new_context(
        base_url=stack.url,
        viewport={"width": WIDTH, "height": PLAN_HEIGHT},
        color_scheme=scheme,
        storage_state=state,
        bypass_csp=True,
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    try:
        yield page
    finally:
        context.close()


def _login(stack: Stack) -> str:
    done = subprocess.run(
        _command("login", "--home", str(stack.home), "--json"), capture_output=True, text=True, timeout=60, check=True
    )
    return str(json.loads(done.stdout)["url"])


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "groundplan.cli.main", *arguments]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
