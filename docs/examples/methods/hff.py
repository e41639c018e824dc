"""The method of the page methods/hff."""

# --8<-- [start:use]
from lightning_ff import MLP, HypersphericalFF

net = MLP(num_classes=10, inputs=784, widths=[1000, 1000])
model = HypersphericalFF(net, num_classes=10, input_shape=(1, 28, 28))
# --8<-- [end:use]
