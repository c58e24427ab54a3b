"""``orca-sweep analyse``: figures and tables of a sweep, by name, each with its own options."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from orca_sweep.analysis.catalogue import ANALYSES, Analysis, Option
from orca_sweep.api.reporting import explain_refusals
from orca_sweep.cli.documents import AsJson, print_document
from orca_sweep.errors import InputError


class _AnalysisGroup(TyperGroup):
    """A group of commands that suggests the nearest analysis for an unknown name."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is None and not cmd_name.startswith("-"):
            raise InputError(f"analyse: {ANALYSES.explain_unknown(cmd_name)}")
        return command


app = typer.Typer(
    cls=_AnalysisGroup,
    help="Make a figure or table of a sweep.\n\nWrites numbers as CSV, tables as Markdown and LaTeX, and pictures as PNG, SVG,"
    " and PDF. Works while the sweep runs.",
    no_args_is_help=True,
    subcommand_metavar="NAME DIR [OPTIONS]",
)
Folder = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="the folder of a sweep or suite, or a folder of tables", show_default=False),
]
Out = Annotated[Path | None, typer.Option("-o", "--out", help="folder for the files; default: figures/ in that folder")]


def check_share(value: float | None) -> float | None:
    """Returns a share between 0 and 1.

    Raises:
        typer.BadParameter: for any other number.
    """
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value:g} is not a share. A share is between 0 and 1, such as 0.95.")
    return value


def make_command(analysis: Analysis) -> Callable[..., None]:
    """Returns the command of an analysis, with a signature of the options that the analysis declares."""

    def run_analysis(folder: Path, out: Path | None = None, as_json: bool = False, **values: Any) -> None:
        options = {name: value for name, value in values.items() if value not in (None, [])}
        document = _write_analysis(analysis, folder, out, options)
        if as_json:
            print_document(f"analyse {analysis.name}", document)
        else:
            for path in document["files"]:
                print(path)

    parameters = [("folder", Folder, inspect.Parameter.empty), ("out", Out, None), ("as_json", AsJson, False)]
    parameters += [(option.parameter, _annotate_option(option), None) for option in analysis.all_options]
    run_analysis.__doc__ = analysis.answers[0].upper() + analysis.answers[1:]
    run_analysis.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation, default=default)
            for name, annotation, default in parameters
        ]
    )
    return run_analysis


def _annotate_option(option: Option) -> Any:
    """Returns the annotation with which typer reads an option; an option that is not given is None."""
    word = f"--{option.name}"
    settings: dict[str, Any] = {"help": option.meaning, "show_default": False}
    if option.metavar:
        settings["metavar"] = option.metavar
    match option.kind:
        case "text" | "width":
            return Annotated[str | None, typer.Option(word, **settings)]
        case "texts":
            return Annotated[list[str] | None, typer.Option(word, **settings)]
        case "number":
            return Annotated[float | None, typer.Option(word, **settings)]
        case "share":
            return Annotated[float | None, typer.Option(word, callback=check_share, **settings)]
        case "flag":
            return Annotated[bool | None, typer.Option(word, **settings)]


def _write_analysis(analysis: Analysis, folder: Path, out: Path | None, options: dict[str, Any]) -> dict[str, Any]:
    """Writes the files of an analysis and returns its document."""
    from orca_sweep.analysis.writing import list_records, write_output
    from orca_sweep.api.analysing import analyse_results
    from orca_sweep.results import open_tables

    with open_tables(folder, is_only_read=out is not None) as (_, results):
        notes = tuple(note for note in results.notes if note != results.smoke_warning)  # the output says it
        for note in notes:
            print(note, flush=True)
        output = analyse_results(replace(results, notes=()), analysis.name, options)  # files do not repeat the notes
    for warning in output.warnings:
        print(f"{analysis.name}: {warning}", file=sys.stderr)
    target = out or folder / "figures"
    with explain_refusals(target):
        paths = write_output(target, analysis.name, output)
    return {
        "records": list_records(output.numbers),
        "more_records": {name: list_records(text) for name, text in output.more_numbers.items()},
        "files": paths,
        "warnings": output.warnings,
        "notes": notes,
    }


for _name in ANALYSES.names():
    _answers = ANALYSES.get(_name).answers
    # The list of commands would cut a question that is not given as a short help.
    app.command(_name, short_help=_answers[0].upper() + _answers[1:])(make_command(ANALYSES.get(_name)))
