"""Headless Chromium for tests, by the WebDriver protocol (www.w3.org/TR/webdriver2)."""

import base64
import contextlib
import json
import re
import shutil
import subprocess
from urllib.error import HTTPError
from urllib.request import Request, urlopen

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's name, by the protocol


def missing():
    """What has to be installed for `opened`, or "" if all is there."""
    names = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    return f"{' and '.join(names)} not installed" if names else ""


@contextlib.contextmanager
def opened(folder, width=1400, height=1000):
    """A Browser with a new profile in `folder`, where its downloads go too."""
    arguments = [*FLAGS.split(), f"--user-data-dir={folder}/profile"]
    chrome = {"binary": shutil.which("chromium"), "args": arguments}
    chrome["prefs"] = {"download.default_directory": str(folder)}
    command = [shutil.which("chromedriver"), "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        try:
            ports = (re.search(r"successfully on port (\d+)", line) for line in driver.stdout)
            address = f"http://127.0.0.1:{next(filter(None, ports))[1]}/session"
            wanted = {"browserName": "chrome", "goog:chromeOptions": chrome}
            made = _ask("POST", address, {"capabilities": {"alwaysMatch": wanted}})
            browser = Browser(f"{address}/{made['sessionId']}")
            browser.resize(width, height)
            try:
                yield browser
            finally:
                _ask("DELETE", browser.address)
        finally:
            driver.terminate()


class Browser:
    def __init__(self, address):
        self.address = address

    def do(self, path, **body):
        return _ask("POST", f"{self.address}/{path}", body)

    def resize(self, width, height):
        """Sets the size of the page in CSS pixels; a narrow one is that of a phone."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.do("goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=size)

    def open(self, path):
        self.do("url", url=path.resolve().as_uri())

    def run(self, code, *arguments):
        """What a piece of JavaScript returns."""
        return self.do("execute/sync", script=code, args=arguments)

    def find(self, css):
        return self.do("element", using="css selector", value=css)[ELEMENT]

    def click(self, css):
        self.do(f"element/{self.find(css)}/click")

    def press(self, css, keys):
        self.do(f"element/{self.find(css)}/value", text=keys)

    def picture(self, path, css="html"):
        found = _ask("GET", f"{self.address}/element/{self.find(css)}/screenshot")
        path.write_bytes(base64.b64decode(found))


def _ask(method, address, body=None):
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(address, data, method=method), timeout=60) as answer:
            return json.load(answer)["value"]
    except HTTPError as error:
        raise RuntimeError(json.load(error)["value"]["message"]) from None
