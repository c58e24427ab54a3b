"""The report of a sweep: one self-contained HTML page, made from its tables alone.

``compute`` gives a frozen Report, ``draw`` its figures, ``page`` the HTML of both. The folder runs as a script:

    python analysis/report --tables results/quickstart/tables --out report.html

``page/`` holds the template, the look and what moves; each other module computes one part of the page.
"""

from orca_sweep.analysis.report.pictures import Picture, draw
from orca_sweep.analysis.report.record import NAME, Report, compute
from orca_sweep.analysis.report.rendering import page

__all__ = ["NAME", "Picture", "Report", "compute", "draw", "page"]
