"""Optimizers, schedulers, clipping, accumulation and checkpoints."""

# --8<-- [start:model]
from functools import partial

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint

from lightning_ff import CosineToEnd, ForwardForward, LinearReadout
from lightning_ff.data import Digits

model = ForwardForward(
    10,
    (1, 8, 8),
    widths=[64, 64],
    readout=LinearReadout(skip_first=False),
    optimizer=partial(torch.optim.Adam, lr=0.003),
    block_optimizers={"readout": partial(torch.optim.AdamW, lr=0.001)},
    scheduler=partial(CosineToEnd, flat=0.5),
    gradient_clip_val=1.0,
    accumulate_grad_batches=2,
)
# --8<-- [end:model]

# --8<-- [start:trainer]
best = ModelCheckpoint(monitor="val/acc", mode="max", filename="best-{epoch:03d}")
last = ModelCheckpoint(
    filename="last",
    enable_version_counter=False,
    save_on_train_epoch_end=True,
)
callbacks = [best, last, LearningRateMonitor()]
data = Digits(batch_size=50)
trainer = Trainer(max_epochs=4, callbacks=callbacks)
trainer.fit(model, data)
# --8<-- [end:trainer]

# --8<-- [start:load]
path = last.best_model_path  # .../checkpoints/last.ckpt
model = ForwardForward.load_from_checkpoint(path)
longer = Trainer(max_epochs=6, callbacks=callbacks)
longer.fit(model, data, ckpt_path=path)  # continues with epoch 4
# --8<-- [end:load]
