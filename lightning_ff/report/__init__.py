"""One page that compares runs: `lightning-ff report RUN [RUN ...] --output report.html`."""

from lightning_ff.report.files import ReportError
from lightning_ff.report.page import write_report

__all__ = ["ReportError", "write_report"]
