"""`lightning-ff report RUN [RUN ...] --output report.html`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_ff.report.files import ReportError


def parser() -> argparse.ArgumentParser:
    """The parser of `lightning-ff report`."""
    made = argparse.ArgumentParser(
        "lightning-ff report",
        description="Compare runs on one page: accuracy, training, sparsity, ensembles, pictures, configuration. The "
        "HTML file holds everything it shows. Runs that differ only in seeds become mean and deviation.",
    )
    folders = "a run's log directory, such as logs/digits/version_0, or a folder above several"
    made.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=folders)
    made.add_argument("--output", "-o", type=Path, default=Path("report.html"), help="HTML file (%(default)s)")
    made.add_argument("--title", default="Runs compared", help="heading of the page (%(default)s)")
    return made


def report(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code: 0, or 2 for an error, reported in one line."""
    from lightning_ff.report.page import write_report

    given = parser().parse_args(arguments)
    runs, output, title = given.runs, given.output, given.title
    return exit_code("report", output, "an HTML", lambda: f"report  {write_report(runs, output, title)}")


def exit_code(command: str, output: Path | None, kind: str, run: Callable[[], str]) -> int:
    """Print what a command returns; 0, or 2 for an error, reported in one line with the file of an `OSError`."""
    try:
        if output is not None and output.is_dir():
            raise ReportError(f"--output {output} is a folder: give the name of {kind} file")
        print(run())
    except (ReportError, OSError) as error:
        text = " ".join(str(error).split())
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{error.filename}: {error.strerror}"
        print(f"lightning-ff {command}: error: {text}", file=sys.stderr)
        return 2
    return 0
