"""What an analysis of a smoke sweep begins with: its numbers answer nothing."""

from collections.abc import Sequence
from dataclasses import replace

from orca_sweep.analysis.writing import Output, Table
from orca_sweep.results import Results


def mark_output(output: Output, results: Results) -> Output:
    """Returns what an analysis writes; if the rows are of a smoke sweep, every caption begins with that warning.

    The caption within a picture begins with it by the ``notice`` of the style that the picture is drawn in.
    """
    warning = results.smoke_warning
    if not warning:
        return output
    caption = f"{warning} {output.caption}".strip()
    tables = mark_tables(output.tables, results)
    return replace(output, tables=tables, caption=caption, warnings=(warning, *output.warnings))


def mark_tables(tables: Sequence[Table], results: Results) -> tuple[Table, ...]:
    """Returns tables; if the rows are of a smoke sweep, every caption begins with that warning, and no note repeats it."""
    warning = results.smoke_warning
    if not warning:
        return tuple(tables)
    return tuple(
        replace(
            table, caption=f"{warning} {table.caption}", notes=tuple(note for note in table.notes if note != warning)
        )
        for table in tables
    )
