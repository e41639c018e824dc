"""The demo: train on digits, test the last checkpoint, print the paths of all files.

python examples/demo.py                                            # any option of `lightning-ff fit` may follow
for seed in 0 1 2 3 4; do python examples/demo.py --seed_everything $seed --data.seed $seed; done
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# threads that spin while they wait slow small nets down
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")


def demo(arguments: list[str]) -> float:
    """Fit and test; returns the test accuracy."""
    from lightning_ff.cli import main

    print("Forward-Forward on scikit-learn's digits: two layers, each with its own loss, no gradient between them.")
    cli = main(["fit", "--config", str(Path(__file__).with_name("digits.yaml")), *arguments])
    metrics = cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path="last", verbose=False)
    return float(metrics[0]["test/acc"])


if __name__ == "__main__":
    demo(sys.argv[1:])
