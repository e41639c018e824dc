"""A schedule of your own: block after block."""

# --8<-- [start:all]
from lightning.pytorch import Trainer

from lightning_ff import ForwardForward, Schedule
from lightning_ff.data import Digits
from lightning_ff.sweep import Segment


class OneByOne(Schedule):
    """One segment learns at a time; those before it run forward, those after it do not run."""

    def __init__(self, length: int) -> None:
        self.length = length

    def learns(self, segment: Segment, epoch: int) -> bool:
        return segment.index == epoch // self.length


model = ForwardForward(10, (1, 8, 8), widths=[64, 64])
model.schedule = OneByOne(length=2)
trainer = Trainer(max_epochs=4)
trainer.fit(model, Digits(batch_size=50))
# --8<-- [end:all]
