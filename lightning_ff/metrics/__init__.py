"""Measures of representations: pure functions, and torchmetrics classes over them."""

from lightning_ff.metrics.connectivity import (
    ensemble_connectivity,
    excitation_inhibition,
    inhibition_ratio,
    weight_statistics,
)
from lightning_ff.metrics.ensembles import (
    ensemble_sizes,
    jaccard,
    kolmogorov_smirnov_ensemble,
    kolmogorov_smirnov_p_values,
    leave_one_out_ensemble,
    mean_jaccard,
    quantile_median_ensemble,
    selectivity_order,
    selectivity_shares,
    shared_units,
)
from lightning_ff.metrics.nulls import chance_jaccard, null_jaccard
from lightning_ff.metrics.probes import linear_probe, one_versus_rest_probe
from lightning_ff.metrics.samples import ClassSamples
from lightning_ff.metrics.similarity import balanced_indices, class_mean_rdm, compare_rdms, sample_rdm
from lightning_ff.metrics.sparsity import ClassStatistics, active_fraction, hoyer_sparsity, treves_rolls_sparsity

__all__ = [
    "ClassSamples",
    "ClassStatistics",
    "active_fraction",
    "balanced_indices",
    "chance_jaccard",
    "class_mean_rdm",
    "compare_rdms",
    "ensemble_connectivity",
    "ensemble_sizes",
    "excitation_inhibition",
    "hoyer_sparsity",
    "inhibition_ratio",
    "jaccard",
    "kolmogorov_smirnov_ensemble",
    "kolmogorov_smirnov_p_values",
    "leave_one_out_ensemble",
    "linear_probe",
    "mean_jaccard",
    "null_jaccard",
    "one_versus_rest_probe",
    "quantile_median_ensemble",
    "sample_rdm",
    "selectivity_order",
    "selectivity_shares",
    "shared_units",
    "treves_rolls_sparsity",
    "weight_statistics",
]
