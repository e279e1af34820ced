"""Drive a headless Chromium through its DevTools protocol, with nothing to install.

    with Browser() as browser:
        browser.open(Path("build/page.html"))
        print(browser.run("document.title"))

Commands go to the browser through one pipe and answers come through another, so no
port is open. Needs Linux or macOS.
"""

import base64
import json
import os
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAMES = ("google-chrome", "chromium", "chromium-browser")
LOUD = ("error", "warning", "assert")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--hide-scrollbars --mute-audio --remote-debugging-pipe"
).split()  # no sandbox: root cannot have one, and the only page is our own


def find_browser() -> str | None:
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One browser with one tab. OSError if there is none or it does not start.

    problems: the errors and warnings that pages wrote to the console since `open`.
    requests: the addresses that they asked for, the page's own included.
    """

    def __init__(self, *, patience: float = 60.0) -> None:
        path = find_browser()
        if path is None:
            raise OSError(f"no browser: none of {', '.join(NAMES)} is installed")
        if fcntl is None:
            raise OSError("no browser: this needs Linux or macOS")
        self.patience, self.received, self.sent = patience, b"", 0
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.folder = tempfile.TemporaryDirectory(
            prefix="browser-", ignore_cleanup_errors=True
        )
        self.session: str | None = None
        self._start(path)
        try:
            target = self.command("Target.createTarget", url="about:blank")["targetId"]
            attached = self.command(
                "Target.attachToTarget", targetId=target, flatten=True
            )
            self.session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.command(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def _start(self, path: str) -> None:
        """The browser reads commands from its file 3 and answers on its file 4."""
        ends = []
        for pipe in (os.pipe(), os.pipe()):
            for end in pipe:  # above 4, so that no copy overwrites another
                ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
                os.close(end)
        theirs_in, self.commands, self.answers, theirs_out = ends
        files = [
            (os.POSIX_SPAWN_DUP2, theirs_in, 3),
            (os.POSIX_SPAWN_DUP2, theirs_out, 4),
            *((os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_RDWR, 0) for n in (0, 1, 2)),
        ]
        line = [path, *FLAGS, f"--user-data-dir={self.folder.name}", "about:blank"]
        self.pid = os.posix_spawn(
            path, line, os.environ, file_actions=files, setsid=True
        )
        os.close(theirs_in)
        os.close(theirs_out)

    def command(self, method: str, **parameters) -> dict:
        """Send a command and wait for its answer. RuntimeError if it is refused."""
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        try:
            while data:
                data = data[os.write(self.commands, data) :]
        except BrokenPipeError:
            raise OSError("the browser has ended") from None
        deadline = time.monotonic() + self.patience
        while True:
            answer = self._receive(method, deadline)
            if answer.get("id") == self.sent:
                break
            self._note(answer.get("method"), answer.get("params", {}))
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _receive(self, method: str, deadline: float) -> dict:
        """The next message, which ends with a zero byte."""
        while b"\0" not in self.received:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.answers], [], [], left)[0]:
                raise OSError(f"no answer to {method} in {self.patience:.0f} s")
            data = os.read(self.answers, 1 << 20)
            if not data:
                raise OSError("the browser has ended")
            self.received += data
        message, self.received = self.received.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: str | None, details: dict) -> None:
        """Keep what a page should not do, or should do rarely."""
        if event == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            thrown = details["exceptionDetails"]
            said = thrown.get("exception", {}).get("description", thrown["text"])
            self.problems.append(said)
        elif event == "Runtime.consoleAPICalled" and details["type"] in LOUD:
            said = [a.get("value", a.get("description")) for a in details["args"]]
            self.problems.append(" ".join(map(str, said)))
        elif event == "Log.entryAdded" and details["entry"]["level"] in LOUD:
            self.problems.append(details["entry"]["text"])

    def open(self, page: Path) -> None:
        """Load a file and wait until its scripts have run.

        OSError if it cannot be read, as by a browser that may see only some folders.
        """
        self.problems, self.requests = [], []
        answer = self.command("Page.navigate", url=page.resolve().as_uri())
        if "errorText" in answer:
            raise OSError(f"the browser cannot read {page}: {answer['errorText']}")
        self.run("new Promise(done => document.readyState === 'complete' ? done() : "
                 "addEventListener('load', () => done()))")  # fmt: skip

    def run(self, expression: str):
        """The value of a JavaScript expression, or of the promise that it gives."""
        answer = self.command(
            "Runtime.evaluate", expression=expression, awaitPromise=True,
            returnByValue=True, userGesture=True,
        )  # fmt: skip
        if "exceptionDetails" in answer:
            thrown = answer["exceptionDetails"]
            said = thrown.get("exception", {}).get("description", thrown["text"])
            raise RuntimeError(said)
        return answer["result"].get("value")

    def press(self, key: str, *, text: str = "", modifiers: int = 0) -> None:
        """A key by its name, such as "Tab". text: what it types; modifiers: 2 is Ctrl,
        8 is Shift."""
        codes = {
            "Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36,
            "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
        }  # fmt: skip
        named = {"key": key, "code": "Space" if key == " " else key}
        named |= {"windowsVirtualKeyCode": codes.get(key, 0), "modifiers": modifiers}
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.command("Input.dispatchKeyEvent", **named, **down)
        self.command("Input.dispatchKeyEvent", **named, type="keyUp")

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        """The size of the window, in CSS pixels."""
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height,
                     deviceScaleFactor=2 if phone else 1, mobile=phone)  # fmt: skip

    def prefer(self, **features: str) -> None:
        """What the reader has asked for, as prefers_color_scheme="dark"."""
        asked = [{"name": name.replace("_", "-"), "value": value}
                 for name, value in features.items()]  # fmt: skip
        self.command("Emulation.setEmulatedMedia", features=asked)

    def screenshot(self, file: Path, *, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End the browser; its folder goes, too."""
        if self.pid is None:
            return
        for end in (self.commands, self.answers):  # with its pipes closed, it ends
            os.close(end)
        deadline = time.monotonic() + 5
        while not os.waitpid(self.pid, os.WNOHANG)[0]:
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                break
            time.sleep(0.01)
        self.pid = None
        self.folder.cleanup()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_) -> None:
        self.close()
