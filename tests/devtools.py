"""A page in headless Chromium, driven as a person would: pointer and keys, by Chromium's DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.browser import chromium

WAIT_S = 60.0
"""For anything a page is waited for; a busy machine is slow."""


class Page:
    """One tab."""

    def __init__(self, wire: ClientConnection) -> None:
        self._wire = wire
        self._numbers = itertools.count(1)

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """One command of the protocol; its result."""
        number = next(self._numbers)
        self._wire.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._wire.recv(timeout=WAIT_S))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait until an expression is true, and give its value."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            if value := self.run(script):
                return value
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}\n{self.run('document.body.innerText')}")

    def go(self, address: str) -> None:
        """Open an address."""
        self.call("Page.navigate", url=address)

    def size(self, width: int, height: int) -> None:
        """Make the window so large, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press, move and release the pointer."""
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        pressed = {"button": "left", "buttons": 1, "clickCount": 1}
        for kind, (x, y), held in (
            ("mouseMoved", start, {}),
            ("mousePressed", start, pressed),
            ("mouseMoved", middle, pressed),
            ("mouseMoved", end, pressed),
            ("mouseReleased", end, pressed),
        ):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **held)

    def click(self, selector: str) -> None:
        """Click the middle of an element, where a person would see it."""
        place = f"document.querySelector({selector!r})"
        self.run(f"{place}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        x, y = self.run(
            f"(() => {{ const r = {place}.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press one key, such as `Tab`, `Enter`, `Delete`, `ArrowUp` or a letter."""
        codes = {"Tab": 9, "Enter": 13, "Delete": 46, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
        codes |= {"ArrowDown": 40}
        code = codes.get(key, ord(key[0].upper()))
        text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path: Path) -> None:
        """Write the whole page as a PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def page(profile: Path) -> Iterator[Page]:
    """A fresh Chromium with an empty page; a skip, or on CI a failure, where there is none."""
    program = chromium()
    process = subprocess.Popen(
        [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with connect(_target(profile), max_size=None, compression=None, proxy=None) as wire:
            found = Page(wire)
            found.call("Page.enable")
            yield found
    finally:
        process.kill()
        process.wait()


def _target(profile: Path) -> str:
    """The address of the first tab."""
    note, end = profile / "DevToolsActivePort", time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if note.exists() and "\n" in note.read_text():
            port = note.read_text().split()[0]
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://127.0.0.1:{port}/json", timeout=WAIT_S) as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise AssertionError("Chromium did not start")
