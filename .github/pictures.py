"""Makes the two pictures of the README from the quickstart: its figure, and the first screen of its report.

    orca-sweep launch quickstart && python .github/pictures.py results/quickstart

The report is opened in Chromium (Debian's package chromium, for example) through playwright, which the extra dev has.
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from orca_sweep.analysis import figure2_proxies
from orca_sweep.analysis.report.making import Asked, make_page
from orca_sweep.results import read_results

FOLDER = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
MOST_BYTES = 120_000
N_COLOURS = 64
"""A palette of so many colours makes the files small, and nobody sees the difference."""


def write_picture(name: str, content: bytes) -> None:
    """Writes a picture with a small palette into this folder; a picture that is too large for a README is an error."""
    path = FOLDER / name
    Image.open(io.BytesIO(content)).convert("RGB").quantize(N_COLOURS).save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{path}: {path.stat().st_size} bytes, and at most {MOST_BYTES} are allowed")
    print(path, path.stat().st_size)


def draw_figure(sweep: Path) -> bytes:
    """Returns the quickstart's figure as PNG."""
    drawn = io.BytesIO()
    figure2_proxies.plot(figure2_proxies.compute(read_results(sweep / "tables"))).savefig(drawn, dpi=150)
    return drawn.getvalue()


def photograph_report(sweep: Path) -> bytes:
    """Returns the first screen of the report as PNG."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        page = Path(folder) / "report.html"
        page.write_text(make_page(read_results(sweep / "tables"), Asked()), encoding="utf-8")
        browser = play.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        shown = browser.new_page(viewport={"width": 1180, "height": 1320})
        shown.goto(page.as_uri())
        content = shown.screenshot()
        browser.close()
    return bytes(content)


if __name__ == "__main__":
    write_picture("figure.png", draw_figure(Path(sys.argv[1])))
    write_picture("report.png", photograph_report(Path(sys.argv[1])))
