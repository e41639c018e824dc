"""A picture and a logger of your own."""

# --8<-- [start:picture]
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_ff import log_figure
from lightning_ff.figures import new_figure


class WeightPicture(Callback):
    """The first block's weights as an image, at the end of training."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        weight = next(pl_module.blocks[0].parameters())
        figure = new_figure(4, 3)
        figure.subplots().imshow(weight.detach().cpu().numpy(), aspect="auto")
        log_figure(trainer, "weights", figure)


# --8<-- [end:picture]


# --8<-- [start:logger]
from lightning.pytorch.loggers import Logger
from matplotlib.figure import Figure

from lightning_ff.loggers import send_figure


class MyLogger(Logger):
    """Keeps what it is given."""

    name, version = "mine", "0"

    def __init__(self) -> None:
        super().__init__()
        self.metrics, self.pictures = [], {}

    def log_metrics(self, metrics: dict, step: int | None = None) -> None:
        self.metrics.append((step, metrics))

    def log_hyperparams(self, params: dict) -> None:
        self.params = params


@send_figure.register(MyLogger)
def _(logger: MyLogger, key: str, figure: Figure, step: int) -> None:
    logger.pictures[key, step] = figure


# --8<-- [end:logger]


# --8<-- [start:run]
from lightning_ff import ForwardForward, NegativePictures
from lightning_ff.data import Digits

logger = MyLogger()
callbacks = [WeightPicture(), NegativePictures()]
trainer = Trainer(max_epochs=1, logger=logger, callbacks=callbacks)
trainer.fit(ForwardForward(10, (1, 8, 8), widths=[64]), Digits(batch_size=50))
# --8<-- [end:run]
