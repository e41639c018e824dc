"""Every number of many small runs is the one that was recorded by `python -m tests.goldens.record`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.goldens.cases import CASES
from tests.goldens.found import differences
from tests.goldens.record import FILE, compute, environment

# Lightning's warnings on monitors of checkpoints, and on a callback that is missing in a resumed run.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create the checkpoint"),
]
LATER = (
    "/hyper_parameters/credit",
    "/hyper_parameters/terms",
    "/init_args/blocks",
    "/init_args/pool",
    "/model/kind",
)  # arguments that came after the record
LATER_KEYS = {"kinds", "rates"}  # of the state of optimizers
RECORDED: dict[str, Any] = json.loads(FILE.read_text())


def test_every_case_is_recorded() -> None:
    assert list(RECORDED["cases"]) == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_all_is_as_recorded(name: str) -> None:
    recorded, found = RECORDED["cases"][name], compute(name)
    assert_equal(recorded["structure"], _without_later(found["structure"], recorded["structure"]))
    if not any(recorded["values"].values()):
        return
    if elsewhere := differences(RECORDED["environment"], environment()):
        pytest.skip(f"numbers are comparable only where they were recorded: {'; '.join(elsewhere)}")
    assert_equal(recorded["values"], found["values"])


def assert_equal(recorded: Any, found: Any) -> None:
    told = [line for line in differences(recorded, found) if not _came_later(line)]
    assert not told, "\n".join([f"{len(told)} entries differ", *told])


def _came_later(line: str) -> bool:
    where, _, what = f"/{line}".partition(":")
    return (where.endswith(LATER) or "/metrics/train/" in where) and what == " found, and not recorded"


def _without_later(found: Any, recorded: Any) -> Any:
    """Names in found structures, without those that came later: of optimizers, and of metrics of short epochs."""
    if isinstance(found, dict) and isinstance(recorded, dict):
        return {key: _without_later(value, recorded.get(key)) for key, value in found.items()}
    if not (isinstance(found, list) and isinstance(recorded, list)):
        return found
    if "param_groups" in recorded:
        return [key for key in found if key not in LATER_KEYS]
    if "val/acc" in recorded and "train/loss" not in recorded:
        return [key for key in found if not str(key).startswith("train/")]
    return found
