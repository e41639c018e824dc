"""The methods of the page methods/relaxation."""

# --8<-- [start:use]
from lightning_ff import MLP, BlockADMM, BlockADMMNet, PredictiveCoding, PredictiveCodingNet

net = MLP(num_classes=10, inputs=784, widths=[300, 100])
model = PredictiveCodingNet(net, 10, (1, 28, 28), cuts="layers", credit=PredictiveCoding(rate=0.1, steps=10))
other = BlockADMMNet(net, 10, (1, 28, 28), cuts="layers", credit=BlockADMM(rho=1.0, rate=0.1, steps=5, rounds=3))
# --8<-- [end:use]
