"""The page in a real browser: nothing on the console, every picture seen, and it prints."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_ff.report import write_report
from lightning_ff.report.page import POLICY

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update \
--disable-sync --no-first-run --disable-dev-shm-usage --enable-logging=stderr"
LOOK = """<script>addEventListener("load", () => { document.body.dataset.seen =
  [...document.images].map(image => image.naturalWidth + "/" + image.getBoundingClientRect().width).join(" "); })
</script></body>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed")


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Open a file in a browser that has never been used."""

    def run(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
        profile = f"--user-data-dir={tmp_path}/profile"
        line = [str(BROWSER), *QUIET.split(), profile, *options, file.as_uri()]
        done = subprocess.run(line, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def file(runs: Any, tmp_path: Path) -> Path:
    return write_report([runs.root / "logs", runs.broken], tmp_path / "report.html")


def test_nothing_on_the_console_and_every_picture_is_seen(file: Path, browse: Any) -> None:
    plain = browse(file, "--dump-dom")
    assert "Accuracy of the networks" in plain.stdout
    assert "CONSOLE" not in plain.stderr
    text = file.read_text(encoding="utf-8")
    assert POLICY in text.replace("&#x27;", "'")
    looking = file.with_name("looking.html")
    looking.write_text(text.replace("</body>", LOOK), encoding="utf-8")
    assert "CONSOLE" in browse(looking, "--dump-dom").stderr  # the page's own policy refuses scripts
    looking.write_text(re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", LOOK), encoding="utf-8")
    (seen,) = re.findall(r'data-seen="([^"]*)"', browse(looking, "--dump-dom").stdout)
    sizes = [[float(number) for number in each.split("/")] for each in seen.split()]
    assert len(sizes) == text.count("<img ") > 8
    assert all(natural > 0 for natural, _ in sizes)
    assert all(shown > 100 for _, shown in sizes[:-1])


def test_it_prints(file: Path, browse: Any, tmp_path: Path) -> None:
    browse(file, f"--print-to-pdf={tmp_path}/report.pdf", "--no-pdf-header-footer")
    data = (tmp_path / "report.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) > 2
