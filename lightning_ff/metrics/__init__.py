"""Measures of representations: pure functions, and torchmetrics classes over them."""

from lightning_ff.metrics.ensembles import (
    jaccard,
    kolmogorov_smirnov_ensemble,
    kolmogorov_smirnov_p_values,
    leave_one_out_ensemble,
    mean_jaccard,
    quantile_median_ensemble,
    selectivity_order,
    shared_units,
)
from lightning_ff.metrics.sparsity import ClassStatistics, active_fraction, hoyer_sparsity, treves_rolls_sparsity

__all__ = [
    "ClassStatistics",
    "active_fraction",
    "hoyer_sparsity",
    "jaccard",
    "kolmogorov_smirnov_ensemble",
    "kolmogorov_smirnov_p_values",
    "leave_one_out_ensemble",
    "mean_jaccard",
    "quantile_median_ensemble",
    "selectivity_order",
    "shared_units",
    "treves_rolls_sparsity",
]
