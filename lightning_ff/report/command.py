"""`lightning-ff report RUN [RUN ...] --output report.html`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_ff.report.files import ReportError


def parser() -> argparse.ArgumentParser:
    """The parser of `lightning-ff report`."""
    made = argparse.ArgumentParser(
        "lightning-ff report",
        description="Compare runs on one page: accuracy, training, sparsity, ensembles, pictures, configuration. The "
        "HTML file holds everything it shows. Runs that differ only in seeds become mean and deviation.",
    )
    made.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="a run's log directory, such as logs/digits/version_0, or a folder above several",
    )
    made.add_argument("--output", "-o", type=Path, default=Path("report.html"), help="HTML file (%(default)s)")
    made.add_argument("--title", default="Runs compared", help="heading of the page (%(default)s)")
    return made


def report(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code: 0, or 2 for an error, reported in one line."""
    from lightning_ff.report.page import write_report

    given = parser().parse_args(arguments)
    try:
        if given.output.is_dir():
            raise ReportError(f"--output {given.output} is a folder: give the name of an HTML file")
        file = write_report(given.runs, given.output, given.title)
    except (ReportError, OSError) as error:
        print(f"lightning-ff report: error: {one_line(error)}", file=sys.stderr)
        return 2
    print(f"report  {file}")
    return 0


def one_line(error: Exception) -> str:
    """One line, with the file of an `OSError`."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())
