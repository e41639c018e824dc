"""Published methods: each chooses parts and cites its paper; none has a training loop."""

from lightning_ff.methods.forward_forward import ForwardForward

__all__ = ["ForwardForward"]
