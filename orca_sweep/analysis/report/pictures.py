"""The study's figures as SVG within a page: text stays text, and no figure's identifiers or styles affect another.

matplotlib's SVG is adapted to a page with several figures: identifiers get the figure's name as a prefix, style attributes
become plain attributes (which a page that forbids inline styles also shows), and numbers are shortened.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree as ET

from orca_sweep.analysis import factor_effects, importance, table_effects
from orca_sweep.analysis.catalogue import choose_figures, find_figures, load_analysis
from orca_sweep.analysis.figure_style import LOOK, FigureStyle, use_settings
from orca_sweep.analysis.fonts import ignore_missing_letters
from orca_sweep.analysis.table_effects import Effects
from orca_sweep.errors import InputError
from orca_sweep.results import Results

SVG = "http://www.w3.org/2000/svg"
LINK = "http://www.w3.org/1999/xlink"
FOREST = "Paired difference of every cell to its base cell"
FACTORS = "Main effects and interactions"
IMPORTANCE = "What each changed part is worth"
MOST_PROBLEMS = 3
PX_PER_PT = 1.5
"""Slightly larger than on paper, so that 8-point text is easy to read."""
MOST_LINES = 60
"""A forest plot with more lines is folded."""
MOST_CHARS = 1_500_000
"""A figure with a longer SVG slows the page down and is too crowded to read."""
SVG_LOOK = {**LOOK, "svg.fonttype": "none", "svg.hashsalt": "orca-sweep"}
STYLE = FigureStyle(width=8, caption=False)
"""The caption is text of the page."""
NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
NAMED = re.compile(r"url\(#([^)]+)\)")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure of the page, or the reason why it is missing."""

    name: str
    title: str
    caption: str = ""
    """What it shows, over how many trials, and what is missing."""
    svg: str = ""
    missing: str = ""
    is_folded: bool = False
    """Whether the page shows it only when asked."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A space of a suite, with the tables of its sweep."""

    name: str
    results: Results


def draw(results: Results, effects: Effects | None, names: Sequence[str] | None = None) -> tuple[Picture, ...]:
    """Returns the forest plot of effects, then the named figures; without names, those that the tables have data for."""
    pictures = [] if effects is None else [_draw_forest(effects)]
    for figure in find_figures():
        if names is None or figure.name in names:
            pictures.append(_make_picture(figure.name, figure.title, _compute_from(figure.name, results)))
    if effects is not None:
        pictures += _draw_design(results, effects)
    # A missing figure is only worth a note if the user named it.
    return tuple(picture for picture in pictures if picture.svg or (names is not None and picture.name in names))


def _draw_forest(effects: Effects) -> Picture:
    n_lines = sum(len(task.rows) for task in effects.tasks)
    return replace(_make_picture(table_effects.NAME, FOREST, lambda: effects), is_folded=n_lines > MOST_LINES)


def draw_members(members: Sequence[Member], names: Sequence[str] | None = None) -> tuple[Picture, ...]:
    """Returns the figure that suits each space of a suite best, or those named that suit it; all are folded.

    Spaces differ in fields that are no factors of all, so no figure of the study can show all of them at once.
    """
    titles = {figure.name: figure.title for figure in find_figures()}
    pictures = []
    for member in members:
        fitting = [name for name in choose_figures(member.results) if name in titles]
        for name in fitting[:1] if names is None else [name for name in fitting if name in names]:
            title = f"{member.name}: {titles[name]}"
            drawn = _make_picture(name, title, _compute_from(name, member.results), within=member.name)
            pictures.append(replace(drawn, is_folded=True))
    return tuple(pictures)


def _draw_design(results: Results, effects: Effects) -> list[Picture]:
    """Returns the figure of the design that the cells show; base cells, margins, and words are those of ``effects``."""
    if importance.is_suited(results):
        return [_make_picture(importance.NAME, IMPORTANCE, lambda: importance.compute_beside(effects))]
    if not factor_effects.has_several_factors(results):
        return []
    return [_make_picture(factor_effects.NAME, FACTORS, lambda: factor_effects.compute_beside(effects, results))]


def _compute_from(name: str, results: Results) -> Callable[[], Any]:
    return lambda: load_analysis(name).compute(results)


def _make_picture(name: str, title: str, compute: Callable[[], Any], *, within: str = "") -> Picture:
    """Draws a figure; ``within`` is the space that it is of, if others of that name are on the page."""
    script = load_analysis(name)
    try:
        record = compute()
        figure, text = _draw_svg(script, record)
    except InputError as error:
        return Picture(name=name, title=title, missing=_shorten_problems([str(each) for each in error.problems]))
    caption = script.write_caption(record)
    svg = for_page(text, "-".join(filter(None, (name, within))), title, _describe_figure(figure, caption))
    if len(svg) > MOST_CHARS:
        missing = f"It is too large for a page. Draw it as a file with 'orca-sweep analyse {name}'."
        return Picture(name=name, title=title, caption=caption, missing=missing)
    return Picture(name=name, title=title, caption=caption, svg=svg)


def _shorten_problems(problems: Sequence[str]) -> str:
    """Returns the first problems: combined spaces can have hundreds."""
    n_hidden = len(problems) - MOST_PROBLEMS
    more = [f"{n_hidden} more of this kind."] if n_hidden > 0 else []
    return " ".join([*problems[:MOST_PROBLEMS], *more])


def _draw_svg(script: Any, record: Any) -> tuple[Any, str]:
    file, figure = io.StringIO(), script.plot(record, STYLE)
    # The fonts of the page have more letters than those of this machine.
    with use_settings(SVG_LOOK), ignore_missing_letters():
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    return figure, file.getvalue()


def _describe_figure(figure: Any, caption: str) -> str:
    """Returns the caption, and the titles of the panels."""
    titles = [axis.get_title(loc="left") for axis in figure.axes if axis.get_visible()]
    return " ".join(f"{caption} Panels: {'; '.join(filter(None, titles))}.".split())


# SVG ----------------------------------------------------------------------------------------------


def for_page(text: str, name: str, title: str, about: str) -> str:
    """Returns matplotlib's SVG as a part of a page; ``name`` must be unique within the page."""
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", LINK)
    # The text comes from matplotlib in this process; ElementTree reads no external entity.
    root = ET.fromstring(NOT_XML.sub("\ufffd", text))  # noqa: S314
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        _prefix_names(element, name)
        _expand_style(element)
        _shorten_numbers(element)
    _share_font(root)
    _add_description(root, name, title, about)
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def _prefix_names(element: ET.Element, name: str) -> None:
    for key, value in element.attrib.items():
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key == f"{{{LINK}}}href" and value.startswith("#"):
            element.set(key, f"#{name}-{value[1:]}")
        elif "url(#" in value:
            element.set(key, NAMED.sub(rf"url(#{name}-\1)", value))


def _expand_style(element: ET.Element) -> None:
    """Turns a style attribute into separate attributes, and a font shorthand into its parts."""
    style = element.attrib.pop("style", "")
    for part in filter(None, map(str.strip, style.split(";"))):
        key, value = (text.strip() for text in part.split(":", 1))
        for name, text in _split_font(value) if key == "font" else ((key, value),):
            element.set(name, text)


def _split_font(value: str) -> Iterable[tuple[str, str]]:
    """Yields 'italic 700 8px 'DejaVu Sans', sans-serif' as attributes."""
    font = re.match(r"(?P<words>.*?)(?P<size>[\d.]+px)\s+(?P<family>.*)", value)
    if not font:
        return
    yield "font-size", font["size"]
    yield "font-family", font["family"]
    for word in font["words"].split():
        if word in ("italic", "oblique"):
            yield "font-style", word
        elif word.isdigit() or word in ("bold", "lighter", "bolder"):
            yield "font-weight", word


def _share_font(root: ET.Element) -> None:
    """Sets the fonts once, on the root, since every text repeats their list."""
    key = "font-family"
    family = next((element.attrib[key] for element in root.iter() if key in element.attrib), None)
    for element in root.iter():
        if element.get(key) == family and family is not None:
            del element.attrib[key]
    if family is not None:
        root.set(key, family)


def _shorten_numbers(element: ET.Element) -> None:
    for key, value in element.attrib.items():
        if key in ("d", "points", "transform", "x", "y", "width", "height", "cx", "cy", "r"):
            element.set(key, LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}", value))


def _add_description(root: ET.Element, name: str, title: str, about: str) -> None:
    root.attrib.pop("version", None)
    for key in ("width", "height"):
        root.set(key, f"{float(root.attrib[key].removesuffix('pt')) * PX_PER_PT:.0f}")
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    # From matplotlib's style sheet, which would affect the whole page.
    root.set("stroke-linejoin", "round")
    root.set("stroke-linecap", "butt")
    for position, (tag, text) in enumerate((("title", title), ("desc", about))):
        element = ET.Element(f"{{{SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = NOT_XML.sub("\ufffd", text)
        root.insert(position, element)
