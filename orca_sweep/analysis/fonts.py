"""The letters of figures: which installed fonts have them, how wide they are, and where a text is broken into lines.

A figure is drawn in the font that Matplotlib brings along. Letters that it lacks, such as Chinese, Japanese and Korean
ones, come from the first installed font that has them. Letters that no font has are named in a warning.
"""

import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orca_sweep.analysis.figure_style import FONT
from orca_sweep.config.labels import shorten_labels

PREFERRED = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "Source Han Sans", "IPAexGothic", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei",
    "Yu Gothic", "Malgun Gothic", "PingFang SC", "PingFang HK", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS",
    "Noto Sans",
)  # fmt: skip
"""Fonts with letters of many languages, which are tried before all others."""
PLACEHOLDERS = ("Last Resort", "LastResort", "Adobe Blank")
"""Fonts that have a box for every letter."""
EXTRA_FONTS = (("matplotlib_fontja", "fonts"),)
"""Packages with fonts, which are never imported: some change Matplotlib's settings."""
HINTING = 1.03
"""How much wider than measured a line may be drawn: on a screen, letters begin at whole pixels."""
GLUED = re.compile(r"\b(n = \d+|sd = \d|sd \d|(Holm )?p [\d<])")
"""Texts within which no line ends."""
PARTS = re.compile(r"[^/_\-.,;:=]*[/_\-.,;:=]?\s*")
"""Parts of a word that is longer than a line; a line ends between them rather than anywhere."""


# Fonts --------------------------------------------------------------------------------------------


def choose_families(text: str) -> tuple[str, ...]:
    """Returns the font families that together have every letter of a text, or as many as the installed fonts have."""
    return _choose_for("".join(sorted(_find_lacking(text))))


def find_missing_letters(text: str) -> str:
    """Returns the letters of a text that no installed font has."""
    missing = _find_lacking(text)
    for family in choose_families(text)[1:]:
        missing -= _letters_of(_find_file(family))
    return "".join(sorted(missing))


def explain_missing_letters(texts: Iterable[str]) -> str:
    """Returns a sentence that names the letters that no installed font has and what to install; else an empty text."""
    letters = find_missing_letters("".join(texts))
    if not letters:
        return ""
    named = ", ".join(f"{letter} (U+{ord(letter):04X})" for letter in letters[:8])
    more = f" and {len(letters) - 8} more" if len(letters) > 8 else ""
    return (
        f"no installed font has {named}{more}, so the figure shows boxes in their place. Install a font that has them, such"
        " as Noto Sans CJK (fonts-noto-cjk on Debian and Ubuntu), or the extra: pip install 'orca-sweep[cjk]'."
    )


def _find_lacking(text: str) -> set[str]:
    """Returns the letters that the font of the figures lacks."""
    return {
        letter for letter in set(text) - _letters_of(_find_file(FONT)) if unicodedata.category(letter)[0] not in "CZ"
    }


@lru_cache(maxsize=1024)
def _choose_for(lacking: str) -> tuple[str, ...]:
    families, missing = [FONT], set(lacking)
    for family in _list_families() if missing else ():
        covered = missing & _letters_of(_find_file(family))
        if covered:
            families.append(family)
            missing -= covered
        if not missing:
            break
    return tuple(families)


@lru_cache(maxsize=1)
def _list_families() -> tuple[str, ...]:
    """Returns all families but that of the figures, those that are preferred first."""
    from matplotlib.font_manager import fontManager

    _add_new_fonts()
    names = {entry.name for entry in fontManager.ttflist if not entry.name.startswith((*PLACEHOLDERS, "cm", "STIX"))}
    return tuple(sorted(names - {FONT}, key=lambda name: (PREFERRED.index(name) if name in PREFERRED else 99, name)))


def _add_new_fonts() -> None:
    """Adds fonts of packages, and fonts that were installed after Matplotlib last listed them."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    listed = {entry.fname for entry in fontManager.ttflist}
    for path in sorted({*findSystemFonts(), *_find_packaged()} - listed):
        with suppress(OSError, RuntimeError, ValueError):  # not every font is one that Matplotlib can read
            fontManager.addfont(path)


def _find_packaged() -> Iterator[str]:
    for package, folder in EXTRA_FONTS:
        spec = find_spec(package)
        for root in (spec and spec.submodule_search_locations) or ():
            yield from map(str, (Path(root) / folder).glob("*.[to]tf"))


@lru_cache(maxsize=1024)
def _find_file(family: str) -> str:
    from matplotlib.font_manager import FontProperties, findfont

    return str(findfont(FontProperties(family=[family])))


@lru_cache(maxsize=256)
def _letters_of(path: str) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    with suppress(OSError, RuntimeError):
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    return frozenset()


def list_texts(figure: Any) -> list[str]:
    """Returns every text of a figure."""
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]


def set_fonts(figure: Any) -> None:
    """Gives each text of a figure the fonts that have its letters."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        set_font(text)


def set_font(text: Any) -> None:
    """Gives a text of a figure the fonts that have its letters."""
    families = choose_families(text.get_text())
    if len(families) > 1:
        text.set_fontfamily(list(families))


@contextmanager
def ignore_missing_letters() -> Iterator[None]:
    """Silences Matplotlib about letters without a font: `explain_missing_letters` says it once, and what to do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(Glyph|Character) .* missing from font", category=UserWarning)
        yield


# Measuring and breaking ---------------------------------------------------------------------------


@lru_cache(maxsize=65536)
def measure_width(text: str, size: float) -> float:
    """Returns the width in points of a line of text at a size in points."""
    from matplotlib.font_manager import get_font
    from matplotlib.ft2font import LoadFlags

    font = get_font([_find_file(family) for family in choose_families(text)])
    font.set_size(size, 72)
    with ignore_missing_letters():
        font.set_text(text, 0.0, flags=LoadFlags.NO_HINTING)
    return float(font.get_width_height()[0]) / 64


def wrap_text(text: str, width: float, size: float, most: int = 0) -> str:
    """Returns a text in lines of at most ``width`` points; a line that ends it ends a line of the result.

    Args:
        text: what to write; its own ends of lines are kept.
        width: of a line, in points.
        size: of the letters, in points.
        most: the largest number of lines, 0 for any; what is cut off is shown as an ellipsis.
    """
    width /= HINTING
    glued = GLUED.sub(lambda match: match[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    lines = [line for part in glued.splitlines() or [""] for line in _wrap_line(part, width, size)]
    if most and len(lines) > most:
        lines = [*lines[: most - 1], _cut_line(lines[most - 1], width, size)]
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def _wrap_line(text: str, width: float, size: float) -> Iterator[str]:
    line = ""
    for piece in _split_pieces(text, width, size):
        if line and measure_width((line + piece).rstrip(), size) > width:
            yield line.rstrip()
            line = ""
        line += piece if line else piece.lstrip()
        while measure_width(line.rstrip(), size) > width and len(line) > 1:
            cut = _count_fitting(line, width, size)
            yield line[:cut].rstrip()
            line = line[cut:]
    yield line.rstrip()


def _split_pieces(text: str, width: float, size: float) -> Iterator[str]:
    """Yields a text in pieces, after each of which a line may end: words, wide letters, and parts of words that do not fit."""
    for word in re.findall("[^ ]+ *| +", text):
        if measure_width(word.rstrip(), size) <= width:
            yield from _split_wide(word)
        else:
            for part in PARTS.findall(word):
                yield from _split_wide(part)


def _split_wide(word: str) -> Iterator[str]:
    """Yields a word in pieces: letters as wide as high, such as Chinese ones, are pieces of their own."""
    narrow = ""
    for letter in word:
        narrow += letter
        if unicodedata.east_asian_width(letter) in "WF":
            yield narrow
            narrow = ""
    if narrow:
        yield narrow


def _count_fitting(line: str, width: float, size: float) -> int:
    """Returns how many letters of a line fit, at least one."""
    low, high = 1, len(line)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if measure_width(line[:middle], size) <= width else (low, middle - 1)
    return low


def _cut_line(line: str, width: float, size: float) -> str:
    while line and measure_width(f"{line} …", size) > width:
        line = line[:-1]
    return f"{line.rstrip()} …"


def fit_labels(labels: Sequence[str], width: float, size: float, most: int = 4) -> list[str]:
    """Returns labels in at most ``most`` lines of ``width`` points each; different labels stay different.

    A label that is too long loses its middle, and a file its folders.
    """
    for length in (90, 70, 54, 44, 36, 30, 24, 18, 12, 9, 7):
        short = shorten_labels(labels, length)
        wrapped = [wrap_text(short[label], width, size) for label in labels]
        if all(text.count("\n") < most for text in wrapped):
            break
    return wrapped
