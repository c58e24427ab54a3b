"""Type checkers see the API: the package is marked as typed, and every public signature has types that can be resolved."""

import inspect
import tomllib
import typing
from pathlib import Path

import pytest

import orca_sweep
from orca_sweep import Plan, Space, Sweep

REPO = Path(__file__).resolve().parents[2]
METHODS = [
    pytest.param(function, id=f"{kind.__name__}.{name}")
    for kind in (Space, Plan, Sweep)
    for name, function in vars(kind).items()
    if not name.startswith("_")
]


def unwrapped(member):
    match member:
        case classmethod():
            return member.__func__
        case property():
            return member.fget
    return getattr(member, "func", member)


def names_of_types():
    """The names that modules import for type checkers alone."""
    import matplotlib.figure
    import pandas

    import orca_sweep.analysis.writing
    import orca_sweep.planning.forecast
    import orca_sweep.planning.terms
    import orca_sweep.results

    return {
        "pd": pandas, "Figure": matplotlib.figure.Figure, "Output": orca_sweep.analysis.writing.Output,
        "Results": orca_sweep.results.Results, "SweepStatus": orca_sweep.results.SweepStatus, "Reveal": orca_sweep.results.Reveal,
        "Forecast": orca_sweep.planning.forecast.Forecast, "Term": orca_sweep.planning.terms.Term,
    }  # fmt: skip


@pytest.mark.parametrize("member", METHODS)
def test_every_public_method_has_types_and_a_docstring(member):
    function = unwrapped(member)
    if not callable(function):
        pytest.skip("a field")
    hints = typing.get_type_hints(function, localns=names_of_types())
    parameters = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
    assert set(hints) >= {*parameters, "return"}
    assert hints["return"] is not typing.Any
    assert function.__doc__


def test_frames_figures_and_sweeps_are_what_the_types_say():
    names = ("results", "epochs", "verdicts", "effects", "claims", "figure", "report", "status", "resume")
    known = names_of_types()
    hints = {name: typing.get_type_hints(getattr(Sweep, name), localns=known)["return"] for name in names}
    assert {kind.__name__ for kind in hints.values()} == {"DataFrame", "Figure", "Path", "SweepStatus", "Sweep"}
    assert typing.get_type_hints(Plan.launch)["return"] is Sweep
    assert typing.get_type_hints(Space.plan)["return"] is Plan


def test_the_wheel_marks_the_package_as_typed():
    assert (Path(orca_sweep.__file__).parent / "py.typed").is_file()
    target = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert target["packages"] == ["orca_sweep"]  # with every file in it
