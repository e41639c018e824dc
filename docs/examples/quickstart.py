"""Forward-Forward on scikit-learn's digits in three lines, with any Lightning Trainer."""

# --8<-- [start:all]
from lightning.pytorch import Trainer

from lightning_ff import ForwardForward
from lightning_ff.data import Digits

data = Digits(batch_size=50)
model = ForwardForward(data.num_classes, data.input_shape, widths=[200, 200])
trainer = Trainer(max_epochs=10)
trainer.fit(model, data)
trainer.test(model, data)
# --8<-- [end:all]

# --8<-- [start:use]
image, label, index = next(iter(data.test_dataloader()))
scores = model(image)  # class scores (N, C)
per_block = model.block_scores(image)  # (N, C) of each block on its own
activations = model.features(image)  # of each block, with the neutral label
# --8<-- [end:use]
