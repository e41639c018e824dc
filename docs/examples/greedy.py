"""A schedule of your own: block after block."""

# --8<-- [start:all]
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_ff import ForwardForward, Schedule
from lightning_ff.data import Digits
from lightning_ff.sweep import Segment


class OneByOne(Schedule):
    """Only one segment learns; those before it run forward, those after it do not run."""

    def __init__(self) -> None:
        self.learning = 0

    def learns(self, segment: Segment) -> bool:
        return segment.index == self.learning


class NextBlock(Callback):
    """Go on to the next block every few epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.schedule.learning = trainer.current_epoch // self.epochs


model = ForwardForward(10, (1, 8, 8), widths=[64, 64])
model.schedule = OneByOne()
trainer = Trainer(max_epochs=4, callbacks=[NextBlock(epochs=2)])
trainer.fit(model, Digits(batch_size=50))
# --8<-- [end:all]
