"""The method of the page methods/mono_forward."""

# --8<-- [start:use]
from lightning_ff import MLP, MonoForward

net = MLP(num_classes=10, inputs=784, widths=[1000, 1000])
model = MonoForward(net, num_classes=10, input_shape=(1, 28, 28))
# --8<-- [end:use]
