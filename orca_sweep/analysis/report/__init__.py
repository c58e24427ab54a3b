"""The report of a sweep: one self-contained HTML page, made only from its tables.

``compute`` returns a frozen Report, ``draw`` its figures, ``page`` the HTML of both; ``make_page`` does all three, and
``make_page_parts`` does so in less memory.
``page/`` holds the templates, the style sheet and the scripts; each other module computes one part of the page.
"""

from orca_sweep.analysis.report.making import (
    Asked,
    check_page_path,
    keep_read_columns,
    list_sources,
    make_page,
    make_page_parts,
    write_page,
)
from orca_sweep.analysis.report.pictures import Member, Picture, draw
from orca_sweep.analysis.report.record import NAME, Report, compute
from orca_sweep.analysis.report.rendering import page

__all__ = [
    "NAME",
    "Asked",
    "Member",
    "Picture",
    "Report",
    "check_page_path",
    "compute",
    "draw",
    "keep_read_columns",
    "list_sources",
    "make_page",
    "make_page_parts",
    "page",
    "write_page",
]
