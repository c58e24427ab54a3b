"""Statistics of ablations: arrays in, frozen records out.

A metric's mode says whether lower (``min``) or higher (``max``) values are better. It changes words, but never the sign of
numbers. Replicates are seeds. A value that is not finite is never dropped silently: it makes the numbers NaN, or is listed.
Nothing here imports pandas, torch or ray, and SciPy is imported only where a number is computed.
"""

from orca_sweep.stats.across_tasks import InterquartileMean, interquartile_mean
from orca_sweep.stats.contrasts import (
    Contrast,
    holm,
    paired_contrast,
    sign_flip_p,
    smallest_effect,
    smallest_p,
)
from orca_sweep.stats.factor_contrasts import (
    LEAST_SEEDS,
    FactorContrast,
    FactorialValues,
    JudgedContrast,
    contrast_factors,
    contrast_fraction,
    contrast_seeds,
    judge_factors,
)
from orca_sweep.stats.factors import (
    Effect,
    FactorEffects,
    LevelMean,
    analyse_table,
    arrange_values,
    factor_effects,
    find_holes,
)
from orca_sweep.stats.fractions import (
    LEAST_EFFECTS,
    AliasSet,
    Fraction,
    PseudoError,
    estimate_pseudo_error,
    find_fraction,
    find_missing_rows,
    half_normal_quantiles,
)
from orca_sweep.stats.intervals import Interval, Proportion, t_interval, wilson_interval
from orca_sweep.stats.ranks import RankCorrelation, rank_correlation, rho_p
from orca_sweep.stats.variances import (
    LEAST_CELLS,
    SdInterval,
    SpreadCheck,
    VarianceRatio,
    check_spreads,
    sd_interval,
    variance_ratio,
)
from orca_sweep.stats.verdicts import (
    WORDS,
    NoiseMargin,
    Reason,
    Verdict,
    Word,
    aa_margin,
    describe_reason,
    judge_contrast,
    judge_contrasts,
    write_verdict,
)

__all__ = [
    "LEAST_CELLS",
    "LEAST_EFFECTS",
    "LEAST_SEEDS",
    "WORDS",
    "AliasSet",
    "Contrast",
    "Effect",
    "FactorContrast",
    "FactorEffects",
    "FactorialValues",
    "Fraction",
    "InterquartileMean",
    "Interval",
    "JudgedContrast",
    "LevelMean",
    "NoiseMargin",
    "Proportion",
    "PseudoError",
    "RankCorrelation",
    "Reason",
    "SdInterval",
    "SpreadCheck",
    "VarianceRatio",
    "Verdict",
    "Word",
    "aa_margin",
    "analyse_table",
    "arrange_values",
    "check_spreads",
    "contrast_factors",
    "contrast_fraction",
    "contrast_seeds",
    "describe_reason",
    "estimate_pseudo_error",
    "factor_effects",
    "find_fraction",
    "find_holes",
    "find_missing_rows",
    "half_normal_quantiles",
    "holm",
    "interquartile_mean",
    "judge_contrast",
    "judge_contrasts",
    "judge_factors",
    "paired_contrast",
    "rank_correlation",
    "rho_p",
    "sd_interval",
    "sign_flip_p",
    "smallest_effect",
    "smallest_p",
    "t_interval",
    "variance_ratio",
    "wilson_interval",
    "write_verdict",
]
