"""Chromium without a window, driven over a pipe by its DevTools protocol; nothing but the standard library.

Invariant: one browser with an empty profile of its own, which ends with the `with` block; what a page logs, throws and
requests is kept until it is asked for.
"""

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]
ANSWER_S = 60


class Missing(Exception):
    """There is no Chromium on PATH."""


class Failed(Exception):
    """The browser did not answer, or refused."""


class Chromium:
    """A running browser."""

    def __enter__(self):
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            raise Missing(f"no Chromium is on PATH: install one of {', '.join(NAMES)}")
        self.profile = tempfile.TemporaryDirectory()
        to_child, self.write = os.pipe()
        self.read, from_child = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars",
                   "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage",
                   f"--user-data-dir={self.profile.name}", "about:blank"]

        def descriptors():
            # The browser reads its orders from 3 and answers on 4; neither may be lost to the other's place.
            orders, answers = os.dup(to_child), os.dup(from_child)
            high = [os.dup2(fd, place) for fd, place in [(orders, 100), (answers, 101)]]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen([program, *options], preexec_fn=descriptors, close_fds=False,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_child)
        os.close(from_child)
        self.next, self.buffer, self.events = 0, b"", []
        return self

    def __exit__(self, *_):
        try:
            self.call("Browser.close")
            self.process.wait(10)
        except (Failed, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.write)
        os.close(self.read)
        self.profile.cleanup()

    def call(self, method, session=None, **parameters):
        """Gives an order and waits for its answer; what else arrives is kept."""
        self.next += 1
        order = {"id": self.next, "method": method, "params": parameters}
        if session:
            order["sessionId"] = session
        os.write(self.write, json.dumps(order).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_S
        while True:
            message = self.message(deadline, method)
            if message.get("id") == order["id"]:
                if "error" in message:
                    raise Failed(f"{method}: {message['error']['message']}")
                return message["result"]
            self.events.append(message)

    def message(self, deadline, method):
        """The next message of the browser."""
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], max(deadline - time.monotonic(), 0))
            piece = os.read(self.read, 1 << 20) if ready else b""
            if not piece:
                raise Failed(f"the browser did not answer {method} within {ANSWER_S} s, or ended")
            self.buffer += piece
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def page(self):
        """A new, empty page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Page(self, session)


class Page:
    """One page of the browser."""

    def __init__(self, browser, session):
        self.browser, self.session = browser, session
        for part in ["Page", "Runtime", "Network", "Log", "DOM"]:
            self.call(f"{part}.enable")

    def call(self, method, **parameters):
        return self.browser.call(method, session=self.session, **parameters)

    def load(self, address, scripts=True):
        """Opens an address and waits until everything has been loaded and, unless it may not, run."""
        self.browser.events = [event for event in self.browser.events if event.get("sessionId") != self.session]
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call("Page.navigate", url=address)
        deadline = time.monotonic() + ANSWER_S
        while not any(self.of("Page.loadEventFired")):
            self.browser.events.append(self.browser.message(deadline, "Page.navigate"))
        self.call("Emulation.setScriptExecutionDisabled", value=False)
        self.settle()

    def of(self, method=None):
        """Name and parameters of what this page reported since it was loaded."""
        own = (event for event in self.browser.events if event.get("sessionId") == self.session)
        return [(event["method"], event["params"]) for event in own if method in (None, event["method"])]

    def settle(self):
        """Waits for two frames to be painted."""
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    def evaluate(self, script):
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise Failed(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def complaints(self):
        """Errors that the page threw or logged since it was loaded."""
        found = []
        for method, parameters in self.of():
            if method == "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                found.append(details.get("exception", {}).get("description", details["text"]))
            elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert", "warning"):
                found.append(" ".join(str(one.get("value", one.get("description"))) for one in parameters["args"]))
            elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
                found.append(parameters["entry"]["text"])
        return found

    def requests(self):
        """Every address that the page asked for since it was loaded."""
        return [sent["request"]["url"] for _, sent in self.of("Network.requestWillBeSent")]

    def size(self, wide, high):
        self.call("Emulation.setDeviceMetricsOverride", width=wide, height=high, deviceScaleFactor=1, mobile=False)

    def media(self, media="", scheme="light"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.settle()

    def move(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.settle()

    def click(self, selector):
        """Scrolls to an element and clicks its middle with the mouse."""
        x, y = self.evaluate(f"""(() => {{
            const element = document.querySelector({json.dumps(selector)});
            element.scrollIntoView({{ block: "center", behavior: "instant" }});
            const box = element.getBoundingClientRect();
            return [box.left + box.width / 2, box.top + box.height / 2];
        }})()""")
        for kind in ["mousePressed", "mouseReleased"]:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def press(self, key):
        for kind in ["rawKeyDown", "keyUp"]:
            code = {"Tab": 9, "End": 35, "Home": 36, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27}[key]
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
        self.settle()

    def picture(self, path, high=None):
        """A PNG of the page from its head, `high` pixels of it or what is in sight."""
        options = {}
        if high:
            wide, whole = self.evaluate("[innerWidth, document.documentElement.scrollHeight]")
            options = {"captureBeyondViewport": True,
                       "clip": {"x": 0, "y": 0, "width": wide, "height": min(high, whole), "scale": 1}}
        data = self.call("Page.captureScreenshot", format="png", **options)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))
