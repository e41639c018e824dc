"""Pictures as pure functions: tensors in, a matplotlib Figure out; nothing is shown or saved here."""

from lightning_ff.figures.activations import activation_wall
from lightning_ff.figures.bars import class_bars, inhibition_bars
from lightning_ff.figures.base import PALETTE, new_figure
from lightning_ff.figures.ensembles import connectivity_map, sharing_map
from lightning_ff.figures.negatives import goodness_histograms, pairs, tile
from lightning_ff.figures.probes import probe_bars
from lightning_ff.figures.profiles import class_profile, class_profiles
from lightning_ff.figures.runs import RunPoint, accuracy_sparsity_scatter
from lightning_ff.figures.similarity import rdm_map, rdm_maps
from lightning_ff.figures.training import growth
from lightning_ff.figures.weights import inhibition_histograms, weight_histograms

__all__ = [
    "PALETTE",
    "RunPoint",
    "accuracy_sparsity_scatter",
    "activation_wall",
    "class_bars",
    "class_profile",
    "class_profiles",
    "connectivity_map",
    "goodness_histograms",
    "growth",
    "inhibition_bars",
    "inhibition_histograms",
    "new_figure",
    "pairs",
    "probe_bars",
    "rdm_map",
    "rdm_maps",
    "sharing_map",
    "tile",
    "weight_histograms",
]
