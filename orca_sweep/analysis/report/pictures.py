"""The figures of the study as SVG inside a page: text stays text, no two figures share a name, no style reaches out.

What matplotlib writes is made to stand in one page with others: its identifiers get the figure's name before them, its
style attributes become plain attributes (a page that allows no inline style shows them too), numbers are shortened.
"""

import io
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

from orca_sweep.analysis import factor_effects, figures, table_effects
from orca_sweep.analysis.declarations import find_figures, load_analysis
from orca_sweep.analysis.table_effects import Effects
from orca_sweep.errors import InputError
from orca_sweep.results import Results

SVG = "http://www.w3.org/2000/svg"
LINK = "http://www.w3.org/1999/xlink"
FOREST = "Paired difference of every cell to its base cell"
FACTORS = "Main effects and interactions"
PX_PER_PT = 1.5
"""Somewhat larger than on paper, so that text of 8 points is read with ease."""
MOST_CHARS = 1_500_000
"""A figure whose SVG is longer makes the page slow, and is too full to be read."""
LOOK: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "orca-sweep",
    "text.parse_math": False,  # levels are users' words: a dollar sign is one
}
NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
NAMED = re.compile(r"url\(#([^)]+)\)")


@dataclass(frozen=True)
class Picture:
    """A figure of the page, or the reason why there is none."""

    name: str
    title: str
    about: str
    """What it shows, for those who do not see it."""
    svg: str
    missing: str = ""


def draw(results: Results, effects: Effects | None, names: Sequence[str] | None = None) -> tuple[Picture, ...]:
    """Returns the forest of effects, then the figures of the given names; of none given those that the tables can fill."""
    made = [] if effects is None else [_make_picture(table_effects.NAME, FOREST, lambda: table_effects.plot(effects))]
    for figure in find_figures():
        if names is None or figure.name in names:
            made.append(_make_picture(figure.name, figure.title, _drawn_from(load_analysis(figure.name), results)))
    if effects is not None and len(results.factors) > 1:
        made.append(_make_picture(factor_effects.NAME, FACTORS, _drawn_from(factor_effects, results)))
    # Of what nobody has asked for by name, what does not fit these tables is no loss to tell of.
    return tuple(picture for picture in made if picture.svg or (names is not None and picture.name in names))


def _drawn_from(script: ModuleType, results: Results) -> Any:
    return lambda: script.plot(script.compute(results))


def _make_picture(name: str, title: str, drawn: Any) -> Picture:
    try:
        figure, text = _svg_of(drawn)
    except InputError as error:
        return Picture(name, title, "", "", " ".join(map(str, error.problems)))
    about = _describe_figure(figure)
    svg = for_page(text, name, title, about)
    if len(svg) > MOST_CHARS:
        return Picture(
            name, title, about, "", f"It is too full for a page. Draw it as a file with 'orca-sweep analyse {name}'."
        )
    return Picture(name, title, about, svg)


def _svg_of(drawn: Any) -> tuple[Any, str]:
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({**figures.LOOK, **LOOK}), warnings.catch_warnings():
        # The page's own fonts have more letters than matplotlib's.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure = drawn()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    return figure, file.getvalue()


def _describe_figure(figure: Any) -> str:
    """What the figure says of itself, above or below its panels, and the panels' titles."""
    titles = [axis.get_title(loc=loc) for axis in figure.axes if axis.get_visible() for loc in ("center", "left")]
    said = [figure.get_suptitle(), figure.get_supxlabel(), f"Panels: {'; '.join(filter(None, titles))}."]
    return " ".join(" ".join(filter(None, said)).split())


# SVG ----------------------------------------------------------------------------------------------


def for_page(text: str, name: str, title: str, about: str) -> str:
    """Returns matplotlib's SVG as a part of a page, under a name that no other part of it has."""
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", LINK)
    # The text comes from matplotlib in this process; ElementTree reads no external entity.
    root = ET.fromstring(NOT_XML.sub("\ufffd", text))  # noqa: S314
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        _own_names(element, name)
        _plain_style(element)
        _shorten_numbers(element)
    _share_font(root)
    _add_description(root, name, title, about)
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def _own_names(element: ET.Element, name: str) -> None:
    for key, value in element.attrib.items():
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key == f"{{{LINK}}}href" and value.startswith("#"):
            element.set(key, f"#{name}-{value[1:]}")
        elif "url(#" in value:
            element.set(key, NAMED.sub(rf"url(#{name}-\1)", value))


def _plain_style(element: ET.Element) -> None:
    """Turns a style attribute into attributes of its own; a font's shorthand into its parts."""
    style = element.attrib.pop("style", "")
    for part in filter(None, map(str.strip, style.split(";"))):
        key, value = (text.strip() for text in part.split(":", 1))
        for own, text in _split_font(value) if key == "font" else ((key, value),):
            element.set(own, text)


def _split_font(value: str) -> Iterable[tuple[str, str]]:
    """'italic 700 8px 'DejaVu Sans', sans-serif' as attributes."""
    found = re.match(r"(?P<words>.*?)(?P<size>[\d.]+px)\s+(?P<family>.*)", value)
    if not found:
        return
    yield "font-size", found["size"]
    yield "font-family", found["family"]
    for word in found["words"].split():
        if word in ("italic", "oblique"):
            yield "font-style", word
        elif word.isdigit() or word in ("bold", "lighter", "bolder"):
            yield "font-weight", word


def _share_font(root: ET.Element) -> None:
    """Says the fonts once: every text repeats their list."""
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
            element.set(key, LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value))


def _add_description(root: ET.Element, name: str, title: str, about: str) -> None:
    root.attrib.pop("version", None)
    for key in ("width", "height"):
        root.set(key, f"{float(root.attrib[key].removesuffix('pt')) * PX_PER_PT:.0f}")
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    # Lines of matplotlib's own style sheet, which would hold for the whole page.
    root.set("stroke-linejoin", "round")
    root.set("stroke-linecap", "butt")
    for place, (tag, text) in enumerate((("title", title), ("desc", about))):
        element = ET.Element(f"{{{SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = NOT_XML.sub("\ufffd", text)
        root.insert(place, element)
