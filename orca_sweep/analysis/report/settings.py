"""What the trials were run with, in words: the body, embedder training, fine-tuning, and the search within cells."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis.report.wording import (
    count_span,
    count_statuses,
    count_text,
    describe_fate,
    join_names,
    join_words,
)
from orca_sweep.analysis.writing import count_things
from orca_sweep.config.labels import write_level
from orca_sweep.results import Cell, Results

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How prose names a field, and how it writes a value that all trials share."""

    name: str
    write: Callable[[str], str]
    off: tuple[str, ...] = ()
    """Levels, besides null, that the text leaves out: the field is off, or as released."""


def _setting(name: str, phrase: str, *off: str) -> Setting:
    return Setting(name=name, write=phrase.format, off=off)


def _counted(name: str, noun: str, phrase: str = "{}", *off: str) -> Setting:
    return Setting(name=name, write=lambda text: phrase.format(count_text(text, noun)), off=off)


INITS = {
    "copied": "an embedder that starts with weights of the body's input layer",
    "random": "an embedder with random initial weights",
    "orca-untrained": "an embedder that starts as in ORCA's code at zero embedder epochs",
}
FINETUNING = {
    "finetune.epochs": _counted("number of fine-tuning epochs", "epoch"),
    "finetune.optimizer": Setting(name="optimizer of fine-tuning", write=lambda text: _name_optimizer(text)),
    "finetune.lr": _setting("peak learning rate of fine-tuning", "a peak learning rate of {}"),
    "finetune.weight_decay": _setting("weight decay of fine-tuning", "a weight decay of {}"),
    "finetune.betas": _setting("decay rates of Adam's averages", "betas of {}", "0.9, 0.999"),
    "finetune.dropout": _setting("dropout of the body", "a dropout of {} in the body"),
    "finetune.batch_size": _counted("batch size", "sample", "batches of {}"),
    "finetune.accumulation": _setting("number of batches per step", "gradients summed over {} batches per step", "1"),
    "finetune.grad_clip": _setting("limit of the gradient norm", "gradients clipped to a norm of {}"),
    "finetune.warmup_epochs": _counted("number of warm-up epochs", "epoch", "a linear warm-up over {}", "0"),
    "finetune.decay_epochs": _setting(
        "end of the linear decay", "a linear decay of the learning rate to zero at epoch {}"
    ),
    "finetune.freeze": _setting("freeze schedule", "the freeze schedule {}", "none"),
    "finetune.lora_rank": _setting("rank of low-rank adapters", "low-rank adapters of rank {}"),
    "predictor.dense": _setting("predictor of dense tasks", "the dense predictor {}", "released"),
}
EMBEDDER = {
    "proxy": Setting(name="proxy", write=lambda text: f"the proxy {join_names([text])}"),
    "embedder.proxy_samples": _counted("number of proxy samples", "proxy sample", "at most {}"),
    "embedder.objective": _setting("alignment objective", "the objective {}"),
    "embedder.epochs": _counted("number of embedder epochs", "epoch", "{} of one optimizer step each"),
    "embedder.init": Setting(
        name="initialisation of the embedder", write=lambda text: INITS.get(text, f"the start {text}")
    ),
    "embedder.channel_copy": _setting("way to copy patch weights to other channels", "{} patch weights", "cycled"),
    "embedder.optimizer": Setting(name="optimizer of embedder training", write=lambda text: _name_optimizer(text)),
    "embedder.lr": _setting("learning rate of embedder training", "an initial learning rate of {}"),
}
BODY = {
    "body.name": Setting(name="body", write=lambda text: f"the body {join_names([text])}"),
    "body.pretrain_fraction": Setting(
        name="share of the pre-training corpus seen", write="a share of {} of the pre-training corpus".format
    ),
    "body.pretrain_steps": _counted("number of pre-training steps", "pre-training step"),
}
MORE_NAMES = {
    "task": "task",
    "finetune.freeze_epochs": "length of the frozen phase in epochs",
    "data.n_train": "number of training samples",
    "data.split_seed": "seed of the split",
    "body.pretrain_seed": "seed of pre-training",
    "seed_varies": "draws that the run seed controls",
}
NAMES = {path: setting.name for part in (BODY, EMBEDDER, FINETUNING) for path, setting in part.items()} | MORE_NAMES


def _name_optimizer(text: str) -> str:
    return {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}.get(text, f"the optimizer {text}")


def name_field(path: str) -> str:
    """Returns the name of a field in prose; a field without one keeps its dotted name."""
    return NAMES.get(path, path)


def varied_levels(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """Returns the levels of each field that has several."""
    levels: dict[str, dict[str, None]] = {}
    for cell in cells:
        for path, value in cell.labels.items():
            levels.setdefault(path, {})[value] = None
    return {path: list(values) for path, values in levels.items() if len(values) > 1}


class Settings:
    """The settings of all trials except candidates of tuning."""

    def __init__(self, results: Results, cells: Sequence[Cell]) -> None:
        trials = results.trials
        self.trials = trials.assign(**results.labels)[trials["role"] != "search"]
        self.results = results
        self.varied = set(varied_levels(cells))

    def describe(self, fields: Mapping[str, Setting], rows: "pd.DataFrame", subject: str) -> Iterable[str]:
        """Yields '<subject> used 30 epochs and the optimizer adamw.', then a sentence per field without a common value.

        Fields that the design varies, that were tuned, or that are off are left out.
        """
        common: list[str] = []
        sentences: list[str] = []
        for path, setting in fields.items():
            values = [value for value in distinct_values(rows, path) if value != ""]
            if path in self.results.tuned:  # the search has a paragraph of its own
                sentences += self._describe_untuned(path, setting, rows)
            elif len(values) == 1 and values[0] not in ("null", *setting.off):
                common.append(setting.write(values[0]))
            elif len(values) > 1 and path not in self.varied:
                sentences.append(f"The {setting.name} was {_describe_values(rows, path, values)}.")
        if common:
            yield f"{subject} used {join_words(common)}."
        yield from sentences

    def _describe_untuned(self, path: str, setting: Setting, rows: "pd.DataFrame") -> Iterable[str]:
        """Yields the values of a field in the sweeps that did not tune it, where another sweep did."""
        tuned = [space for space, search in self.results.searches.items() if path in search.get("fields", {})]
        values = distinct_values(rows[~rows["space"].isin(tuned)], path) if tuned else []
        if values:
            yield f"The {setting.name} was {join_names(map(_name_value, values))} in sweeps that did not tune it."

    def list_measured(self, column: str, rows: "pd.DataFrame") -> list[str]:
        """Returns the distinct values of a measured column as text, without missing ones."""
        return [text for text in distinct_values(rows, column) if text not in ("null", "")]


def distinct_values(rows: "pd.DataFrame", column: str) -> list[str]:
    """Returns the distinct values of a column as text; none if the table lacks it."""
    return [write_level(value) for value in rows[column].drop_duplicates()] if column in rows else []


def _describe_values(rows: "pd.DataFrame", path: str, values: Sequence[str]) -> str:
    """Returns '5 for a and 9 for b', or the values where a task has several."""
    by_task = {str(task): distinct_values(part, path) for task, part in rows.groupby("task", sort=False)}
    if all(len(of_task) == 1 for of_task in by_task.values()):
        tasks: dict[str, list[str]] = {}
        for task, (value,) in by_task.items():
            tasks.setdefault(value, []).append(task)
        return join_words(f"{_name_value(value)} for {join_names(names)}" for value, names in tasks.items())
    return f"one of {join_names(map(_name_value, values))}, depending on other settings"


def _name_value(value: str) -> str:
    return {"null": "not set"}.get(value, value)


# Training -----------------------------------------------------------------------------------------


def describe_training(settings: Settings) -> Iterable[str]:
    """Yields sentences on the body, embedder training, and fine-tuning."""
    rows = settings.trials
    yield from _describe_body(settings, rows)
    if "embedder.epochs" in rows:
        yield from _describe_embedder(settings, rows)
    yield from settings.describe(FINETUNING, rows, "Fine-tuning")
    schedules = distinct_values(rows, "finetune.freeze")
    if schedules == ["none"]:
        yield "Nothing was frozen in fine-tuning."
    lengths = [n for n in distinct_values(rows[rows["finetune.freeze"] != "none"], "finetune.freeze_epochs")
               if n != "null"] if schedules else []  # fmt: skip
    if schedules != ["none"] and len(lengths) == 1 and "finetune.freeze_epochs" not in settings.varied:
        ends = "the end of training" if lengths[0] == "forever" else f"the end of epoch {lengths[0]}"
        yield f"A frozen phase without a length of its own lasted until {ends}."


def _describe_body(settings: Settings, rows: "pd.DataFrame") -> Iterable[str]:
    names, shares, steps = (distinct_values(rows, path) for path in BODY)
    subject = "All trials" if rows["trial_id"].nunique() > 1 else "The trial"
    if len(names) != 1 or "body.name" in settings.results.tuned:
        yield from settings.describe(BODY, rows, subject)
        return
    pretrained = ""
    if len(shares) == 1 and shares[0] != "null":
        on = "its whole corpus" if shares[0] == "1" else f"a share of {shares[0]} of its corpus"
        length = f" for {count_text(steps[0], 'step')}" if len(steps) == 1 and steps[0] != "null" else ""
        pretrained = ", randomly initialised" if shares[0] == "0" else f", pre-trained on {on}{length}"
    yield f"{subject} used the body {join_names(names)}{pretrained}."
    yield from settings.describe(
        {path: s for path, s in BODY.items() if not pretrained and path != "body.name"}, rows, subject
    )


def _describe_embedder(settings: Settings, rows: "pd.DataFrame") -> Iterable[str]:
    import pandas as pd

    epochs = pd.to_numeric(rows["embedder.epochs"], errors="coerce").fillna(0)
    trained = rows[epochs > 0]
    n, n_naive = trained["cell_id"].nunique(), rows.loc[epochs <= 0, "cell_id"].nunique()
    if not n:
        yield "No trial trained its embedder before fine-tuning."
        return
    if n_naive:
        yield f"The embedder was trained before fine-tuning in {count_things(n, 'cell')}, and not in {n_naive:,} (naive)."
    yield from settings.describe(EMBEDDER, trained, "Embedder training")
    yield from _describe_drops(trained, float(epochs.max()))
    yield from _describe_placebos(trained)


def _describe_drops(trained: "pd.DataFrame", most_epochs: float) -> Iterable[str]:
    factors, steps = (distinct_values(trained, f"embedder.lr_{name}") for name in ("decay", "decay_after"))
    if len(factors) != 1 or len(steps) != 1 or factors[0] in ("null", "1") or steps[0] == "null":
        return
    passed = [step for step in steps[0].strip("[]").split(", ") if step.isdigit() and int(step) + 1 < most_epochs]
    if passed:
        noun = "steps" if len(passed) > 1 else "step"
        yield f"Its learning rate was multiplied by {factors[0]} after {noun} {join_words(passed)}, counted from 0."


def _describe_placebos(trained: "pd.DataFrame") -> Iterable[str]:
    proxies = distinct_values(trained, "proxy")
    shuffled = [proxy for proxy in proxies if proxy.startswith("shuffled:")]
    if shuffled:
        yield (
            f"The proxy {join_names(shuffled)} has permuted labels, as a placebo."
            if len(shuffled) == 1
            else (f"The proxies {join_names(shuffled)} have permuted labels, as placebos.")
        )
    if "dummy" in proxies:
        yield "The proxy dummy is noise with random labels, as a placebo."


# Tuning -------------------------------------------------------------------------------------------

METHODS = {
    "grid": "a grid search over all combinations",
    "random": "a random search",
    "optuna": "a sequential search with Optuna's TPE sampler",
}


def describe_tuning(settings: Settings) -> Iterable[str]:
    """Yields sentences on the search within cells: fields, ranges, method, effort, seeds, and the rule of choice."""
    results = settings.results
    if not results.tuned:
        rates = distinct_values(settings.trials, "finetune.lr")
        is_shared = len(rates) == 1 and rates[0] != "null"
        yield f"Nothing was tuned{f'; all cells share a fine-tuning learning rate of {rates[0]}' if is_shared else ''}."
        return
    several = len(results.searches) > 1
    for space, search in results.searches.items():
        yield _describe_search(search, f"In the sweep {join_names([space])}, we" if several else "We")
    if not results.searches:
        names = join_words(f"the {name_field(path)}" for path in results.tuned)
        yield f"We tuned {names} within each cell; the tables do not name the method of the search and its ranges."
    yield from _describe_effort(results)
    yield (
        "The candidate with the best mean validation metric was then trained with the seeds of the replicates. No mean"
        " includes a trial of the search."
    )


def _describe_search(search: Mapping[str, Any], subject: str) -> str:
    fields = join_words(_describe_range(path, values) for path, values in search.get("fields", {}).items())
    method = METHODS.get(str(search.get("method")), f"the search method {search.get('method')}")
    seeds = [str(seed) for seed in search.get("seeds", ())]
    of = "seed" if len(seeds) == 1 else "seeds"
    used = f" Each candidate was trained with the {of} {join_names(seeds)}." if seeds else ""
    return f"{subject} tuned {fields} separately within each cell, on validation data alone, by {method}.{used}"


def _describe_range(path: str, values: Any) -> str:
    if isinstance(values, Mapping):
        scale = " on a logarithmic scale" if values.get("log") else ""
        return f"the {name_field(path)} ({write_level(values['low'])} to {write_level(values['high'])}{scale})"
    return f"the {name_field(path)} ({join_names(values)})" if values else f"the {name_field(path)}"


def _describe_effort(results: Results) -> Iterable[str]:
    trials = results.trials
    searched = trials[trials["role"] == "search"]
    if not len(searched):
        yield "No candidate has been planned yet."
        return
    # A candidate has a trial for each seed of the search.
    candidates = searched.drop_duplicates(["cell_id", *results.tuned])
    counts = {int(count) for count in candidates.groupby("cell_id").size()}
    lost = {str(status): int(n) for status, n in searched["status"].value_counts().items()}
    gone = f", of which {count_statuses(lost)}" if len(searched) > lost.get("ok", 0) else ""
    replicate_seeds = set(trials.loc[trials["role"] != "search", "seed"])
    fresh = replicate_seeds and not replicate_seeds & set(searched["seed"])
    yield (
        f"{'The' if len(set(candidates['cell_id'])) == 1 else 'Each'} cell had {count_span(counts, 'candidate')};"
        f" all together took {count_things(len(searched), 'trial')}{gone}."
        f"{' No replicate uses a seed of the search.' if fresh else ''}"
    )


def describe_rules(results: Results) -> Iterable[str]:
    """Yields sentences on what could end a trial early, run it again, or end the sweep."""
    several = len(results.rules) > 1
    for space, rules in results.rules.items():
        of = f" of the sweep {space}" if several else ""
        if prune := rules.get("prune"):
            yield _describe_pruning(prune, of)
        if limit_s := rules.get("trial_s"):
            yield f"A trial{of} was stopped after {count_text(f'{limit_s:g}', 'second')}."
        for status, n in rules.get("retry", {}).items():
            fate = describe_fate(status, 2)
            yield f"Trials{of} that {fate}{',' * (',' in fate)} were run again, up to {count_text(str(n), 'time')}."
        if budget := rules.get("budget"):
            limits = {"trials": "trial", "hours": "hour", "cpu_hours": "CPU-hour", "gpu_hours": "GPU-hour"}
            amounts = join_words(count_text(f"{budget[key]:g}", noun) for key, noun in limits.items() if key in budget)
            yield f"The budget{of or ' of the sweep'} was limited to {amounts}."


def _describe_pruning(prune: Mapping[str, Any], of: str) -> str:
    name = {"asha": "ASHA", "median": "the median rule"}.get(str(prune.get("name")), str(prune.get("name")))
    grace = count_text(str(prune.get("grace_epochs", 1)), "fine-tuning epoch")
    keeps = f" and kept one in {prune['reduction']:g} at each rung" if prune.get("name") == "asha" else ""
    what = "Trials, replicates included," if prune.get("cells") else "Candidates of the search"
    return f"{what}{of} that did badly on validation data were stopped early by {name}, which gave each {grace}{keeps}."
