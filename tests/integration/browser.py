"""A headless Chromium, driven over its DevTools protocol by the one package for that which JupyterLab brings along."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class BrowserError(AssertionError):
    """The page did not do what it should."""


class Browser:
    """One page.

    Parameters
    ----------
    folder : Path
        For its profile; it need not exist.
    width, height : int
        Of the page, in pixels.

    Attributes
    ----------
    complaints : list of str
        Uncaught exceptions of the page, and errors that it wrote to the console.
    """

    def __init__(self, folder: Path, width: int = 1400, height: int = 1000) -> None:
        import websocket

        assert CHROMIUM is not None
        folder.mkdir(parents=True, exist_ok=True)
        self.complaints: list[str] = []
        self._number = 0
        self._socket: Any = None
        with open(folder / "chromium.log", "wb") as log:
            self._process = subprocess.Popen(
                [
                    CHROMIUM, "--headless=new", "--no-sandbox", "--remote-debugging-port=0",
                    f"--user-data-dir={folder}", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
                    "--disable-breakpad",
                    "--disable-background-networking", "--disable-component-update", "--disable-sync",
                    f"--window-size={width},{height}", "about:blank",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        try:
            address = self._page(folder)
            self._socket = websocket.create_connection(address, timeout=30, suppress_origin=True)
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
            self.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
            )
        except BaseException:
            self.close()
            raise

    def _page(self, folder: Path, timeout: float = 60.0) -> str:
        """Address of the page's socket, once the browser has said its port."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError, IndexError, StopIteration):
                port = (folder / "DevToolsActivePort").read_text().split()[0]
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
                    pages = [target for target in json.load(answer) if target["type"] == "page"]
                return next(str(page["webSocketDebuggerUrl"]) for page in pages)
            time.sleep(0.05)
        raise BrowserError(f"chromium did not start:\n{(folder / 'chromium.log').read_text(errors='replace')[-2000:]}")

    # --- protocol ----------------------------------------------------------------------------------

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol, and its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error']['message']}")
                result: dict[str, Any] = message["result"]
                return result
            self._event(message)

    def _event(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
        elif message.get("method") == "Page.javascriptDialogOpening":  # nobody else would answer it
            self._number += 1
            self._socket.send(
                json.dumps({"id": self._number, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}})
            )

    # --- what a person does ------------------------------------------------------------------------

    def navigate(self, url: str) -> None:
        """Open an address."""
        result = self.call("Page.navigate", url=url)
        if "errorText" in result:
            raise BrowserError(f"{url}: {result['errorText']}")

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression; of a promise, what it comes to."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")

    def wait_for(self, expression: str, timeout: float = 30.0) -> Any:
        """Until a JavaScript expression is true of the page (as JavaScript means it); its value, of an element true."""
        end = time.monotonic() + timeout
        asked = (
            f"(async () => {{ const value = await ({expression}); "
            "return value ? [value instanceof Node || value] : null; })()"
        )
        while True:
            try:
                found, failure = self.evaluate(asked), ""
            except BrowserError as error:  # what it is about may not be there yet
                found, failure = None, f" ({error})"
            if found:
                return found[0]
            if time.monotonic() > end:
                said = "\n".join(self.complaints[-5:])
                raise BrowserError(f"not within {timeout:.0f} s: {expression}{failure}\n{said}")
            time.sleep(0.1)

    def click(self, selector: str, timeout: float = 30.0) -> None:
        """Press and release the mouse on an element, once it is there, at rest and in front of all others."""
        x, y = self.wait_for((_POINT % json.dumps(selector)).strip(), timeout)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Click into a field and write, in place of what is there."""
        self.click(selector)
        self.evaluate("document.activeElement.select()")
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """The page as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End it with all its processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(self._process.pid)
            family = [main, *main.children(recursive=True)]
            if self._socket is not None:
                with contextlib.suppress(Exception):
                    self._socket.send(json.dumps({"id": 0, "method": "Browser.close"}))
                    self._process.wait(5)
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            _, left = psutil.wait_procs(family, timeout=10)
            assert not left, left
        self._process.wait(10)
        if self._socket is not None:
            self._socket.close()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# The middle of an element, if it has not moved since the last frame and a click there would meet it.
_POINT = """
(async () => {
    const element = document.querySelector(%s);
    if (!element) return null;
    element.scrollIntoView({block: "nearest"});
    const before = element.getBoundingClientRect();
    await new Promise(resolve => setTimeout(resolve, 50));
    const box = element.getBoundingClientRect();
    if (box.width === 0 || box.x !== before.x || box.y !== before.y) return null;
    const x = box.x + box.width / 2, y = box.y + box.height / 2;
    const hit = document.elementFromPoint(x, y);
    return hit && (element.contains(hit) || hit.contains(element)) ? [x, y] : null;
})()
"""
