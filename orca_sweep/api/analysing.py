"""Analyses by their names, with options as Python gives them."""

from collections.abc import Iterator, Mapping
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis.catalogue import ANALYSES, Analysis, Option
from orca_sweep.api.paths import read_text
from orca_sweep.config.labels import write_level
from orca_sweep.errors import NO_VALUE, InputError, Problem
from orca_sweep.registry import hint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from orca_sweep.analysis.writing import Output
    from orca_sweep.results import Results


def find_analysis(name: str) -> Analysis:
    """Returns the analysis of a name, or the only one whose name contains it.

    Raises:
        InputError: with the nearest name, or with all names that contain a part.
    """
    names = ANALYSES.names()
    read_text(name, "name")
    if name in names:
        return ANALYSES.get(name)
    having = [known for known in names if name and name in known]
    if len(having) > 1:
        rule = f"{len(having)} analyses have {name!r} in their names: {', '.join(having)}."
        raise InputError(Problem(field="analysis", value=name, rule=rule, remedy="Name one of them."))
    if not having:
        raise InputError(Problem(field="analysis", value=name, rule=ANALYSES.explain_unknown(name)))
    return ANALYSES.get(having[0])


def analyse_results(results: "Results", name: str, options: Mapping[str, Any]) -> "Output":
    """Returns what an analysis of tables writes.

    Args:
        results: the tables.
        name: as of `find_analysis`.
        options: by the names of the command line with underscores; None and False stand for options that are not given.

    Raises:
        InputError: for unknown names and wrong options, all at once, or if the tables cannot answer the question.
    """
    from orca_sweep.analysis.catalogue import make_output

    analysis = find_analysis(name)
    return make_output(analysis.name, results, _read_options(analysis, options))


def take_figure(name: str, output: "Output") -> "Figure":
    """Returns the figure of an analysis, which a notebook can show by itself.

    Raises:
        InputError: if it has none.
    """
    from orca_sweep.analysis.writing import render_figure

    if output.figure is None:
        rule = f"{find_analysis(name).name} has no figure."
        raise InputError(Problem(field="figure", value=name, rule=rule, remedy="Take analyse(...).tables or .numbers."))
    figure: Figure = output.figure
    # Without pyplot, nothing tells a notebook how to show it.
    figure._repr_png_ = partial(render_figure, figure, "png")  # type: ignore[attr-defined]
    return figure


def _read_options(analysis: Analysis, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keyword arguments of the analysis."""
    by_name = {name: option for option in analysis.all_options for name in _name_option(option)}
    problems: list[Problem] = []
    options: dict[str, Any] = {}
    for name, value in asked.items():
        if name not in by_name:
            known = [option.name.replace("-", "_") for option in analysis.all_options]
            rule = f"there is no such option. {hint(name, known)}" if known else "this analysis has no options."
            problems.append(Problem(field=name, rule=rule, scope=analysis.name))
        elif value is not None and value is not False:
            option = by_name[name]
            read, rule = _read_option(option, value)
            problems += [Problem(field=name, value=value, rule=rule, scope=analysis.name)] if rule else []
            options |= {} if read in ([], NO_VALUE) else {option.parameter: read}
    if problems:
        raise InputError(problems)
    return options


def _name_option(option: Option) -> set[str]:
    return {option.name.replace("-", "_"), option.parameter}


def _read_option(option: Option, value: Any) -> tuple[Any, str]:
    """Returns an option's value for the analysis, and what is wrong with it."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    match option.kind:
        case "texts":
            return list_items(value), ""
        case "text":
            return (value, "") if isinstance(value, str) else (NO_VALUE, "this must be a text.")
        case "width":
            is_width = is_number or isinstance(value, str)
            return (value, "") if is_width else (NO_VALUE, "this must be 'column', 'page', or a number of inches.")
        case "number":
            return (float(value), "") if is_number else (NO_VALUE, "this must be a number.")
        case "share":
            is_share = is_number and 0 < value < 1
            return (float(value), "") if is_share else (NO_VALUE, "a share is between 0 and 1, such as 0.95.")
        case "flag":
            return (True, "") if value is True else (NO_VALUE, "this must be True or False.")


def list_items(value: Any) -> list[str]:
    """Returns 'FACTOR=LEVEL' or '[TASK=]NUMBER' for each part of an option that may be repeated.

    Args:
        value: a mapping, a text, a number, several of these, or None for nothing.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [f"{name}={item}" for name, items in value.items() for item in _list_levels(items)]
    if hasattr(value, "__iter__"):
        return [item for part in value for item in list_items(part)]
    return [write_level(value)]


def _list_levels(levels: Any) -> Iterator[str]:
    several = levels if isinstance(levels, list | tuple) else [levels]
    yield from (level if isinstance(level, str) else write_level(level) for level in several)
