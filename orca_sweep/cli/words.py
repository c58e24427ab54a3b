"""How values are written for people."""


def level_text(value: object) -> str:
    """Returns a level as a table shows it."""
    if value is None or value != value:  # a null in a column of numbers is read as NaN
        return "null"
    return f"{value:.10g}" if isinstance(value, float) else str(value)
