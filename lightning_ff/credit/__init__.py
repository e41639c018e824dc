"""Credit: where the gradient of a block comes from."""

from lightning_ff.credit.base import Credit
from lightning_ff.credit.feedback import DirectFeedback
from lightning_ff.credit.relaxation import ActivationRelaxation
from lightning_ff.credit.states import BlockADMM, PredictiveCoding, StateRelaxation

__all__ = ["ActivationRelaxation", "BlockADMM", "Credit", "DirectFeedback", "PredictiveCoding", "StateRelaxation"]
