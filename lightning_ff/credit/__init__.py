"""Credit: where the gradient of a block comes from."""

from lightning_ff.credit.base import Credit
from lightning_ff.credit.feedback import DirectFeedback
from lightning_ff.credit.relaxation import ActivationRelaxation

__all__ = ["ActivationRelaxation", "Credit", "DirectFeedback"]
