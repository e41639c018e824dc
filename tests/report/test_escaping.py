"""Whatever a run is called or holds is text on the page, never markup."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lightning_ff.report import write_report
from lightning_ff.report.html import Markup, element, render
from tests.report.page_reader import Page, read_page

BAD = "<img src=x onerror=alert(1)>"
WORSE = "</pre></style><script>alert('1')</script>"


@pytest.fixture
def page(folder: Callable[..., Path], statistics: dict[str, Any], store: Any, tmp_path: Path) -> Page:
    """Of a run in which everything that can be named is named badly."""
    renamed = {key.replace("block00", "a & <b>b</b>"): value for key, value in statistics.items()}
    classes = np.array([BAD, WORSE, '"quoted" & $'])
    layers = np.array(["a & <b>b</b>"])
    config = {
        "model": {"class_path": "a.B", "init_args": {WORSE: WORSE}}, "data": {"class_path": f"x.{BAD}"}, BAD: WORSE
    }  # fmt: skip
    metrics = f"epoch,step,train/loss/{BAD},val/acc,val/acc/{BAD}\n0,0,1.5,0.5,0.25\n0,1,1.0,0.5,0.25\n"
    run = folder(f"logs/{BAD}/version_0", config_yaml=yaml.safe_dump(config), metrics_csv=metrics)
    store(run, "test", {**renamed, "classes": classes, "layers": layers, "definition": np.array(WORSE)})
    drawn = run / "figures" / BAD / "00000003.png"
    drawn.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(drawn)
    return read_page(write_report([run], tmp_path / "page.html", title=WORSE))


def test_no_element_of_theirs(page: Page) -> None:
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "b"} & set(tags)
    assert tags.count("style") == 1
    for tag, attributes in page.tags:
        assert "onerror" not in attributes
        if tag == "img":
            assert (attributes["src"] or "").startswith("data:image/png;base64,")
            assert set(attributes) == {"src", "alt", "width", "height"}


def test_they_are_there_as_text(page: Page, tmp_path: Path) -> None:
    assert page.table("The configurations").rows[1][:3] == [f"A {BAD}", "B", BAD]
    assert [row[0] for row in page.table("Accuracy by class").rows[1:]] == [BAD, WORSE, '"quoted" & $']
    assert page.table("Sparsity of each layer").rows[1][0] == "a & <b>b</b>"
    assert page.table("Accuracy of each block").rows[1][:2] == [BAD, "25.00"]
    assert WORSE in page.table("Ensembles of the classes").caption
    assert page.text.count(WORSE) >= 4  # title, heading, configuration, class
    alts = [attributes["alt"] or "" for tag, attributes in page.tags if tag == "img"]
    assert f"{BAD} of {tmp_path}/logs/{BAD}/version_0" in alts


def test_elements_escape_text_and_attributes() -> None:
    assert render(["a < b", None, Markup("<br/>"), ["&"]]) == "a &lt; b<br/>&amp;"
    assert element("p", "x", class_='"y"', data_z=1, hidden=True, id=None) == (
        '<p class="&quot;y&quot;" data-z="1" hidden>x</p>'
    )
    assert element("img", alt="<") == '<img alt="&lt;"/>'
    assert element("p", element("b", "<")) == "<p><b>&lt;</b></p>"


def test_a_name_that_is_no_unicode(folder: Callable[..., Path], tmp_path: Path) -> None:
    run = folder("logs/bad\udcff/version_0", metrics_csv="epoch,step,val/acc\n0,0,0.5\n")
    page = read_page(write_report([run], tmp_path / "page.html"))
    assert page.table("The configurations").rows[1][0] == "A bad?"
