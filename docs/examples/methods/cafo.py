"""The method of the page methods/cafo."""

# --8<-- [start:use]
from lightning_ff import CaFo, ConvNet

net = ConvNet(num_classes=10, channels=1, widths=[32, 128, 512], pools=[0, 1, 2])
model = CaFo(net, num_classes=10, input_shape=(1, 28, 28))
# --8<-- [end:use]
