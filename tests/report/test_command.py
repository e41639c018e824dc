"""`lightning-ff report`: its output file, and its error messages of one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_ff.__main__ import run
from lightning_ff.cli import main
from lightning_ff.report.command import report
from tests.report.page_reader import read_page

ROW = "epoch,step,val/acc\n0,0,0.5\n"


def test_the_entry_point_hands_report_on(
    folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(metrics_csv=ROW)
    monkeypatch.setattr(sys, "argv", ["lightning-ff", "report", "logs", "--output", "new/folder/page.html"])
    with pytest.raises(SystemExit) as stop:
        run()
    assert stop.value.code == 0
    assert capsys.readouterr().out == "report  new/folder/page.html\n"
    page = read_page(tmp_path / "new/folder/page.html")
    assert page.table("The configurations").rows[1] == ["A made", "\u2013", "\u2013", "1", "logs/made/version_0"]


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        report(["--help"])
    assert stop.value.code == 0
    assert "RUN [RUN ...]" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "lightning-ff report RUN [RUN ...]" in " ".join(capsys.readouterr().out.split())


def test_without_output_it_is_report_html_here(folder: Callable[..., Path], tmp_path: Path) -> None:
    assert report([str(folder(metrics_csv=ROW)), "--title", "Three seeds"]) == 0
    assert "Three seeds" in (tmp_path / "report.html").read_text()


def test_what_is_wrong_is_said_in_one_line(
    folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = str(folder(metrics_csv=ROW))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    wrong = {
        (str(tmp_path / "nowhere"),): "nowhere: no such folder",
        (str(tmp_path / "file"),): "file is no folder",
        (str(tmp_path / "empty"),): "empty holds no run: neither it nor a folder below it",
        (made, str(tmp_path / "empty")): "empty holds no run",
        (made, "--output", str(tmp_path / "empty")): "empty is a folder: give the name of an HTML file",
        (made, "--output", str(tmp_path / "file" / "page.html")): "file: ",
    }
    for arguments, said in wrong.items():
        assert report(arguments) == 2, arguments
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("lightning-ff report: error: "), arguments
        assert printed.err.count("\n") == 1
        assert said in printed.err
    assert not list(tmp_path.rglob("*.html"))


def test_no_run_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        report([])
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith("error: the following arguments are required: RUN\n")
