"""The report of a sweep: one self-contained HTML page, made from its tables alone.

``compute`` gives a frozen Report, ``draw`` its figures, ``page`` the HTML of both; ``make_page`` does all three.
``page/`` holds the template, the look and what moves; each other module computes one part of the page.
"""

from orca_sweep.analysis.report.making import Asked, check_page_path, list_sources, make_page, write_page
from orca_sweep.analysis.report.pictures import Picture, draw
from orca_sweep.analysis.report.record import NAME, Report, compute
from orca_sweep.analysis.report.rendering import page

__all__ = [
    "NAME",
    "Asked",
    "Picture",
    "Report",
    "check_page_path",
    "compute",
    "draw",
    "list_sources",
    "make_page",
    "page",
    "write_page",
]
