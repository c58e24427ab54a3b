"""Regular two-level fractions: which effects share a column, and which estimates stand out without a second look at noise.

A row is a combination of levels, True for the high level of a factor. The rows are a regular fraction if the factors in
which two rows differ are always also the difference between the first row and some row of the set (a subgroup). Then two
effects either have orthogonal columns or the same column up to sign: they are aliases, and only their signed sum can be
estimated. Everything here is read from the rows, so it does not depend on generators that a file may or may not record.

Source: Box, Hunter and Hunter (2005), Statistics for Experimenters, ch. 6; Daniel (1959) for half-normal plots; Lenth (1989)
for the pseudo standard error.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from orca_sweep.stats.intervals import check_level, is_rounding

Rows = Sequence[tuple[bool, ...]]
Factors = tuple[int, ...]
MOST_FACTORS = 16
"""The search for aliases goes through effects of up to all factors, and gets slow."""
LARGEST_LISTED = 3
"""Aliases of up to so many factors are listed."""
LEAST_EFFECTS = 7
"""With fewer effects, the middle of them says too little about noise for Lenth's margins."""


@dataclass(frozen=True, kw_only=True)
class AliasSet:
    """Effects that share a column: the data show only their signed sum."""

    factors: Factors
    """The shortest effect of the set, as positions of its factors: a main effect if there is one."""
    aliases: tuple[tuple[int, Factors], ...]
    """The sign and the factors of each other effect of up to three factors, the shortest first."""
    column: tuple[int, ...]
    """Sign of the shortest effect in each row: the product of -1 (low) and +1 (high) over its factors."""


@dataclass(frozen=True, kw_only=True)
class Fraction:
    """A regular fraction, or a whole two-level design."""

    n_factors: int
    n_run: int
    resolution: int | None
    """The fewest factors of an effect that is constant over all rows; None if all combinations run."""
    sets: tuple[AliasSet, ...]
    """One per estimate that can be made, n_run - 1 in all, the shortest effects first."""

    @property
    def is_whole(self) -> bool:
        """Whether all combinations run, so that nothing is aliased."""
        return self.n_run == 2**self.n_factors


@dataclass(frozen=True, kw_only=True)
class PseudoError:
    """Lenth's estimate of noise from the effects themselves, and the effects that it would call unusual."""

    n: int
    """Effects."""
    pse: float
    """Pseudo standard error of an effect."""
    df: float
    margin: float
    """Margin of error: one effect without influence lies within it at the confidence level."""
    simultaneous_margin: float
    """All n effects without influence lie within it at the confidence level."""
    level: float


def find_fraction(rows: Rows) -> Fraction | None:
    """Returns the design of distinct rows if it is a regular fraction or whole; None if it is neither.

    Raises:
        ValueError: if there are no rows, or more than 16 factors.
    """
    masks = _read_masks(rows)
    basis = _find_basis(masks)
    if len(set(masks)) != len(rows) or len(rows) != 2 ** len(basis) or len(rows) < 2:
        return None
    k = len(rows[0])
    return Fraction(
        n_factors=k, n_run=len(rows), resolution=_find_resolution(k, basis), sets=tuple(_list_sets(rows, basis))
    )


def find_missing_rows(rows: Rows) -> list[tuple[bool, ...]]:
    """Returns the rows that would complete the smallest regular fraction that contains these rows.

    If it has more than twice as many rows, these are no part of a fraction worth the name, and nothing is returned.

    Raises:
        ValueError: as `find_fraction`.
    """
    masks = _read_masks(rows)
    basis, k, first = _find_basis(masks), len(rows[0]), _as_mask(rows[0])
    have = set(masks)
    if 2 ** len(basis) > 2 * len(have):
        return []
    spanned = [0]
    for mask in basis:
        spanned += [member ^ mask for member in spanned]
    return [tuple(bool((mask ^ first) >> i & 1) for i in range(k)) for mask in spanned if mask not in have]


def _as_mask(row: Sequence[bool]) -> int:
    return sum(1 << i for i, is_high in enumerate(row) if is_high)


def _read_masks(rows: Rows) -> list[int]:
    """Returns the factors in which each row differs from the first, as bits."""
    if not rows or len(rows[0]) > MOST_FACTORS:
        raise ValueError(f"{len(rows)} rows of at most {MOST_FACTORS} factors are needed.")
    first = _as_mask(rows[0])
    return [_as_mask(row) ^ first for row in rows]


def _find_basis(masks: Sequence[int]) -> list[int]:
    """Returns masks that span all masks by differences, none of which the others span (Gaussian elimination)."""
    basis: list[int] = []
    for mask in masks:
        for known in basis:
            mask = min(mask, mask ^ known)
        if mask:
            basis.append(mask)
    return basis


def _find_syndrome(effect: Factors, basis: Sequence[int]) -> int:
    """Returns a number that effects have in common exactly if they are aliases; 0 for a constant column."""
    mask = sum(1 << i for i in effect)
    return sum(((mask & known).bit_count() & 1) << i for i, known in enumerate(basis))


def _list_effects(k: int) -> Iterator[Factors]:
    for size in range(1, k + 1):
        yield from itertools.combinations(range(k), size)


def _find_resolution(k: int, basis: Sequence[int]) -> int | None:
    return next((len(effect) for effect in _list_effects(k) if _find_syndrome(effect, basis) == 0), None)


def _list_sets(rows: Rows, basis: Sequence[int]) -> Iterator[AliasSet]:
    n_sets, by_syndrome = len(rows) - 1, dict[int, list[Factors]]()
    for effect in _list_effects(len(rows[0])):
        if len(effect) > LARGEST_LISTED and len(by_syndrome) == n_sets:
            break
        syndrome = _find_syndrome(effect, basis)
        if syndrome and (len(effect) <= LARGEST_LISTED or syndrome not in by_syndrome):
            by_syndrome.setdefault(syndrome, []).append(effect)
    signs = 2 * np.array(rows, dtype=int) - 1
    for shortest, *rest in by_syndrome.values():
        column = signs[:, shortest].prod(axis=1)
        aliases = tuple((int(signs[0, other].prod() * column[0]), other) for other in rest)
        yield AliasSet(factors=shortest, aliases=aliases, column=tuple(column.tolist()))


def estimate_pseudo_error(effects: Sequence[float] | np.ndarray, level: float = 0.95) -> PseudoError:
    """Returns Lenth's pseudo standard error of m effects with equal standard errors, most of them without influence.

    s0 = 1.5 median |e|, PSE = 1.5 median of the |e| below 2.5 s0, df = m / 3. The margin of error is t(df) PSE; the
    simultaneous margin takes the quantile (1 + level^(1 / m)) / 2. If most effects are zero up to rounding, they say nothing
    about noise, and all numbers are NaN, as they are without effects or with one that is not finite.

    Source: Lenth (1989), "Quick and easy analysis of unreplicated factorials".
    """
    check_level(level)
    sizes = np.abs(np.asarray(effects, dtype=float))
    m = int(sizes.size)
    pse = _find_pse(sizes) if m and np.isfinite(sizes).all() else math.nan
    if math.isnan(pse):
        return PseudoError(n=m, pse=pse, df=m / 3, margin=pse, simultaneous_margin=pse, level=level)
    from scipy.special import stdtrit

    single, all_of_them = (float(stdtrit(m / 3, (1 + share) / 2)) for share in (level, level ** (1 / m)))
    return PseudoError(n=m, pse=pse, df=m / 3, margin=single * pse, simultaneous_margin=all_of_them * pse, level=level)


def _find_pse(sizes: np.ndarray) -> float:
    middle = 1.5 * float(np.median(sizes))
    if is_rounding(middle, float(sizes.max())) or middle == 0:
        return math.nan
    return 1.5 * float(np.median(sizes[sizes < 2.5 * middle]))


def half_normal_quantiles(n: int) -> tuple[float, ...]:
    """Returns where the n ordered absolute effects are plotted: the half-normal quantiles of (i - 1/2) / n.

    Source: Daniel (1959), "Use of half-normal plots in interpreting factorial two-level experiments".
    """
    from scipy.special import ndtri

    return tuple(float(ndtri(0.5 + 0.5 * (i + 0.5) / n)) for i in range(n))
