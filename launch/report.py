"""Make one page of a run: what was trained on what, its results, evaluations and curves, in a single HTML file.

report.py runs/quickstart --open
report.py runs/distilbert --out distilbert.html
"""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

from distil import errors, options


def main() -> None:
    """Parse, make the page, say where it is, and show it where that was asked for and there is a display."""
    parser = options.Parser(description=__doc__, allow_abbrev=False, formatter_class=options.Formatter)
    parser.add_argument("run", metavar="RUN_DIR", type=Path, help="folder of the run, finished or not")
    parser.add_argument("--out", metavar="FILE", type=Path, help="where to write it; default: RUN_DIR/report.html")
    parser.add_argument("--open", action="store_true", help="show it in a browser, where there is a display")
    chosen = parser.parse_args()

    from distil.report.page import make

    path = make(chosen.run, chosen.out)
    shown = chosen.open and has_display() and webbrowser.open(path.resolve().as_uri())
    print(f"report: {path}{', shown in your browser' if shown else ''}")


def has_display() -> bool:
    """Whether a window can be opened here; a browser of a terminal would take the terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


if __name__ == "__main__":
    errors.leave(errors.run(main))
