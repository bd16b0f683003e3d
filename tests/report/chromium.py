"""A real browser, without a window: Debian's Chromium, pages served on this machine, and what it says of them."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

from harness import cannot

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
# A page of its own origin may look into a frame; Chromium's own windows are never as narrow as a phone.
FRAME = """<!doctype html><title>frame</title>
<iframe src="{page}" width="{width}" height="900"></iframe>
<pre></pre>
<script>
const frame = document.querySelector('iframe');
frame.addEventListener('load', () => {{
  const look = new Function('page', 'window', {look});
  document.querySelector('pre').textContent = JSON.stringify(look(frame.contentDocument, frame.contentWindow));
}});
</script>"""


class Pages:
    """A folder that is served, what was asked of it, and a browser that looks at it."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.address = folder, address
        self.asked: list[str] = []
        self.console: list[str] = []

    def look(self, page: str, width: int, look: str) -> Any:
        """What a body of JavaScript returns that is given ``page`` and ``window``, ``width`` pixels wide."""
        frame = self.folder / "frame.html"
        frame.write_text(FRAME.format(page=page, width=width, look=json.dumps(look)))
        shown = self._run("frame.html", "--dump-dom", "--window-size=1600,1000")
        said = re.search(r"<pre>(.*?)</pre>", shown, re.DOTALL)
        assert said and said[1], f"nothing came of it: {self.console}"
        return json.loads(unescape(said[1]))

    def screenshot(self, page: str, width: int, height: int, dark: bool = False) -> Path:
        """A PNG file of the page's first ``height`` pixels."""
        out = self.folder.parent / f"{page}-{width}{'-dark' if dark else ''}.png"
        scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        self._run(page, f"--screenshot={out}", f"--window-size={width},{height}", "--hide-scrollbars", scheme)
        return out

    def _run(self, page: str, *how: str) -> str:
        profile = self.folder.parent / "profile"
        line = ["chromium", *FLAGS, f"--user-data-dir={profile}", "--enable-logging=stderr", *how, self.address + page]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        self.console += re.findall(r"CONSOLE[:\d]*\] (.*)", done.stderr)
        return done.stdout


@contextmanager
def pages(folder: Path) -> Iterator[Pages]:
    """Serve a folder on this machine alone."""
    if shutil.which("chromium") is None:
        cannot("there is no chromium (apt-get install chromium)")
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def end_headers(self) -> None:
            self.send_header("Cache-Control", "no-store")  # the frame is another one at every look
            super().end_headers()

        def log_request(self, *ignored: object) -> None:
            asked.append(self.path)

        def log_message(self, *ignored: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            found = Pages(folder, f"http://127.0.0.1:{server.server_address[1]}/")
            found.asked = asked
            yield found
        finally:
            server.shutdown()
            thread.join()
