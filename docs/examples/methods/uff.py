"""The method of the page methods/uff."""

# --8<-- [start:use]
from lightning_ff import UFF

model = UFF(num_classes=10, input_shape=(1, 28, 28), widths=[500, 500, 500], noise=0.3)
# --8<-- [end:use]
