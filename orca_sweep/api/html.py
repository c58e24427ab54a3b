"""Small HTML for notebooks: every text is escaped, and there are no scripts and no styles."""

from collections.abc import Iterable, Sequence
from html import escape

from orca_sweep.visible import escape_controls


def write_html(
    title: str, tables: "Iterable[tuple[Sequence[str], Iterable[Sequence[str]]]]", lines: Iterable[str]
) -> str:
    """Returns a title, tables of a head and rows, and lines below them."""
    made = "".join(_write_table(head, rows) for head, rows in tables)
    items = "".join(f"<li>{_escape_text(line)}</li>" for line in lines)
    return f"<div><p><b>{_escape_text(title)}</b></p>{made}{f'<ul>{items}</ul>' if items else ''}</div>"


def _write_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    names = "".join(f"<th>{_escape_text(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{_escape_text(text)}</td>' for text in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"


def _escape_text(text: str) -> str:
    # Notebooks read dollar signs as formulas.
    return escape(escape_controls(text)).replace("$", "&#36;")
