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
from orca_sweep.stats.factors import Effect, FactorEffects, LevelMean, factor_effects
from orca_sweep.stats.intervals import (
    UNBOUNDED,
    Bounds,
    Interval,
    Proportion,
    describe_interval,
    t_interval,
    wilson_interval,
)
from orca_sweep.stats.ranks import RankCorrelation, rank_correlation, rho_p
from orca_sweep.stats.variances import SdInterval, VarianceRatio, sd_interval, variance_ratio
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
    "UNBOUNDED",
    "WORDS",
    "Bounds",
    "Contrast",
    "Effect",
    "FactorEffects",
    "InterquartileMean",
    "Interval",
    "LevelMean",
    "NoiseMargin",
    "Proportion",
    "RankCorrelation",
    "Reason",
    "SdInterval",
    "VarianceRatio",
    "Verdict",
    "Word",
    "aa_margin",
    "describe_interval",
    "describe_reason",
    "factor_effects",
    "holm",
    "interquartile_mean",
    "judge_contrast",
    "judge_contrasts",
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
