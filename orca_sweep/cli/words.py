"""How values are written for people."""

from orca_sweep.visible import escape_controls


def level_text(value: object) -> str:
    """Returns a level as a table shows it: in one line, and with its control characters written out."""
    if value is None or value != value:  # a null in a column of numbers is read as NaN
        return "null"
    return f"{value:.10g}" if isinstance(value, float) else escape_controls(str(value))
