"""The method of the page methods/deeper_forward."""

# --8<-- [start:use]
from lightning_ff import DeeperForward

model = DeeperForward(num_classes=10, input_shape=(3, 32, 32))  # 17 convolutions of 100, 200, 400 and 800 channels
small = DeeperForward(10, (1, 8, 8), channels=[20, 40, 80, 160], pools=[1], skips=False)
# --8<-- [end:use]
