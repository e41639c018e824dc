"""What a subclass of an earlier release may have overridden."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_ff import ForwardForward


def test_a_method_that_would_not_be_called_is_refused() -> None:
    class Clamping(ForwardForward):
        def sweep(self, *arguments: Any, **named: Any) -> Any:
            return None

    with pytest.raises(TypeError, match=r"Clamping overrides sweep\(\), which a training step no longer calls"):
        Clamping(10, (1, 8, 8), widths=[4])
