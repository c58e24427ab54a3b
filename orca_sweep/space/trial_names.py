"""Names of trials for people: levels and seed, such as 'proxy none, pretrain_fraction 0, seed 2'."""

from collections.abc import Collection, Mapping

from orca_sweep.config.naming import shorten_paths
from orca_sweep.space.records import Role

ROLE_WORDS: Mapping[Role, str] = {"replicate": "", "search": "candidate of tuning", "aa": "A/A repeat"}


class TrialNames:
    """The names of a sweep's trials. Trials of the same name have their ids added."""

    def __init__(self, labels: Mapping[str, Mapping[str, str]], tuned: Collection[str]) -> None:
        """Starts without trials.

        Args:
            labels: by cell, the readable level of every factor.
            tuned: the tuned fields, whose values are part of a name.
        """
        self._labels = labels
        factors = next(iter(labels.values()), {})
        self._short = shorten_paths((*factors, *tuned))
        self._ids: dict[str, set[str]] = {}

    def add_trial(self, trial_id: str, cell_id: str, *, seed: int, role: Role, tuned: Mapping[str, str]) -> str:
        """Adds a trial and returns its name; ``tuned`` are the readable values of the tuned fields."""
        levels = {**self._labels.get(cell_id.removesuffix("-aa"), {}), **tuned}
        words = [f"{self._short.get(path, path)} {level}" for path, level in levels.items()]
        name = ", ".join([*words, *filter(None, [ROLE_WORDS[role]]), f"seed {seed}"])
        ids = self._ids.setdefault(name, set())
        ids.add(trial_id)
        return name if len(ids) == 1 else f"{name}, trial {trial_id}"
