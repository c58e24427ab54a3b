"""Says in which trials permuted proxy labels test nothing, since labels do not reach the training there."""

from collections.abc import Iterable, Iterator, Mapping

from orca_sweep.config.acting import LABELS_CAN_ACT, proxy_labels_act
from orca_sweep.config.declaration import SHUFFLED
from orca_sweep.trial.facts import read_trial_facts
from orca_sweep.trial.records import ResolvedTrial


def labels_act_in(trial: ResolvedTrial) -> bool | None:
    """Returns whether the proxy's labels reach the gradient of a trial's embedder training; None if nobody says."""
    return proxy_labels_act(read_trial_facts(trial))


def warn_of_idle_placebos(trials: Iterable[ResolvedTrial], labels: Mapping[str, str]) -> list[str]:
    """Returns a warning for each objective whose gradient permuted labels do not reach, or that does not say so.

    Args:
        trials: a trial of each cell.
        labels: the name to show for each proxy.
    """
    proxies: dict[tuple[str, bool | None], dict[str, None]] = {}
    for trial in trials:
        config = trial.config
        if config.proxy.startswith(SHUFFLED) and config.embedder.epochs > 0:
            act = labels_act_in(trial)
            if not act:
                names = proxies.setdefault((config.embedder.objective, act), {})
                names[labels.get(config.proxy, config.proxy)] = None
    return list(_write_warnings(proxies))


def _write_warnings(proxies: Mapping[tuple[str, bool | None], Iterable[str]]) -> Iterator[str]:
    for (objective, act), names in proxies.items():
        subject = f"proxy {', '.join(names)} with embedder.objective {objective}"
        if act is None:
            yield (
                f"{subject}: the objective does not say whether it sees the proxy's labels, so no claim counts these cells."
                f" Set sees_proxy_labels in its record."
            )
        else:
            yield (
                f"{subject}: permuted labels change the objective's value but do not reach its gradient, but for rounding and"
                " what a short annealing leaves. So this placebo trains the embedder as the real proxy does and tests nothing"
                " about labels; no claim counts it."
                f" {LABELS_CAN_ACT}."
            )
