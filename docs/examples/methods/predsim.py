"""The method of the page methods/predsim."""

# --8<-- [start:use]
from lightning_ff import MLP, PredSim

net = MLP(num_classes=10, inputs=784, widths=[1024, 1024, 1024], dropout=0.1)
model = PredSim(net, num_classes=10, input_shape=(1, 28, 28))
# --8<-- [end:use]
