"""Every figure, on tables that are hard to draw: no text is clipped or covered, and series differ without colour."""

import functools
import io
import itertools
import re
import warnings
from dataclasses import replace

import pytest

from orca_sweep.analysis import fonts
from orca_sweep.analysis.catalogue import ANALYSES, load_analysis, make_output, write_analysis
from orca_sweep.analysis.figure_style import COLOURS, FigureStyle, read_style
from orca_sweep.analysis.ticks import format_tick_labels
from orca_sweep.analysis.writing import MINUS, render_figure
from orca_sweep.errors import InputError
from tests.builders.figures import CHINESE, DECLARED, LONG, find_faults, find_texts, hard_tables
from tests.builders.in_process import command

NAMES = [name for name in ANALYSES.names() if ANALYSES.get(name).has_figure]
FACTORS = {
    "figure2_proxies": {},
    "figure3_otdd_vs_error": {"embedder.epochs": [0, 1, 5, 20]},
    "figure4_freezing": {"finetune.freeze": ["none", "body"]},
    "figure5_pretraining": {"body.pretrain_fraction": [0.0, 0.001, 0.1, 1.0]},
    "half_normal": {
        "embedder.init": ["copied", "random"],
        "finetune.freeze": ["none", "body"],
        "body.pretrain_fraction": [0.0, 1.0],
    },
}
STYLES = [FigureStyle(width=width, font_size=size) for width in (3.25, 6.75) for size in (6, 10)]
COLUMN = STYLES[1]
"""The style with the least room for a letter."""
SHARED = ("usual", "own data", "twelve long levels")
"""Cases whose figures several tests look at."""
FIRST, SECOND = ["digits", "ecg"], ["none", "mnist5k", "dummy"]


def factors(name, **levels):
    """The factors that a figure needs, with these levels of task and proxy."""
    levels = {"task": FIRST, "proxy": SECOND} | levels
    if name == "half_normal":
        levels["proxy"] = levels["proxy"][-2:]
    return levels | FACTORS.get(name, {"embedder.init": ["copied", "random"]})


CASES = {
    "usual": lambda name: hard_tables(factors(name), n_failed=2),
    "one of each": lambda name: hard_tables(
        {"task": ["digits"], "proxy": ["mnist5k"]} | {path: v[-1:] for path, v in FACTORS.get(name, {}).items()},
        n_seeds=1, n_epochs=1,
    ),
    "one seed": lambda name: hard_tables(factors(name), n_seeds=1),
    "one task": lambda name: hard_tables(factors(name, task=["digits"]), n_epochs=1),
    "twelve long levels": lambda name: hard_tables(factors(name, proxy=[f"{LONG}{i:02}" for i in range(12)])),
    "eight long tasks": lambda name: hard_tables(factors(name, task=[f"{i}-{LONG}" for i in range(8)], proxy=SECOND[:2])),
    "own data": lambda name: hard_tables(
        factors(name, task=[DECLARED.format(i) for i in range(2)], proxy=["none", *(DECLARED.format(i) for i in range(3))])
    ),
    "other letters": lambda name: hard_tables(
        factors(name, task=["手書き数字", "écg"], proxy=["none", *CHINESE]), metric="誤り率", metric_unit="μ²"
    ),
    "tiny": lambda name: hard_tables(factors(name), scale=1e-9, shift=1e-7),
    "huge": lambda name: hard_tables(factors(name), scale=1e11, shift=4e12, metric_mode="max"),
    "close": lambda name: hard_tables(factors(name), scale=1e-4, shift=123456),
    "negative": lambda name: hard_tables(factors(name), scale=-100.0, metric_mode="max"),
    "long metric": lambda name: hard_tables(factors(name), metric="normalised_root_mean_squared_error_of_all_fields_over_time",
                                            metric_unit="share of the norm of the field at the last time step"),
    "forty cells": lambda name: hard_tables(factors(name, task=["digits"], proxy=[f"proxy {i}" for i in range(20)])),
    "dollars": lambda name: hard_tables(factors(name, proxy=["none", "$x_", "a_b^c$", "100%", "a\\b{c}"])),
}  # fmt: skip


REFUSED = {
    *((name, "one of each") for name in ("table_effects", "importance", "factor_effects", "half_normal")),
    *(("summary_over_tasks", case) for case in ("one of each", "one task", "negative", "forty cells")),
}  # fmt: skip
"""Tables in which an analysis has nothing to compare."""


@functools.cache
def record_of(name, case):
    """The record of an analysis of hard tables; None if the analysis refuses them."""
    try:
        return load_analysis(name).compute(CASES[case](name))
    except InputError:
        return None


def styles_of(case):
    """The style with the least room for a letter, and that with the most where the case may fill it."""
    return [COLUMN, STYLES[2]] if case in ("usual", "own data") else [COLUMN]


def is_drawn_by_default(name, case):
    """Whether the short form draws this pair: the cases of long words always, of the rest every third in turn."""
    rest = [other for other in CASES if other not in ("usual", *SHARED)]
    return case not in rest or (name, case) in REFUSED or (rest.index(case) + NAMES.index(name)) % 3 == 0


PAIRS = [
    pytest.param(name, case, marks=[] if is_drawn_by_default(name, case) else [pytest.mark.long])
    for name in NAMES
    for case in CASES
]


@functools.cache
def picture_of(name, case):
    """The figure of an analysis of hard tables at column width, drawn once; of the usual tables if it refuses these."""
    return load_analysis(name).plot(record_of(name, case) or record_of(name, "usual"), COLUMN)


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_no_text_is_clipped_or_covered(name, case):
    assert_readable(name, case, styles_of(case))


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_clipped_or_covered_in_any_style(name):
    assert_readable(name, "usual", STYLES)


def assert_readable(name, case, styles):
    record = record_of(name, case)
    assert (record is None) == ((name, case) in REFUSED)
    for style in styles if record else ():
        is_shared = case in SHARED and style == COLUMN
        figure = picture_of(name, case) if is_shared else load_analysis(name).plot(record, style)
        assert figure.get_figwidth() == style.width
        assert len(find_texts(figure)) > 2
        assert not find_faults(figure), style


@pytest.mark.parametrize("name", NAMES)
def test_series_differ_without_colour(name):
    figure = picture_of(name, "twelve long levels")
    legends = [axis.get_legend() for axis in figure.axes if axis.get_visible() and axis.get_legend()]
    is_letter = re.compile("[A-Z]: ").match  # such a text names its points itself
    for legend in legends:
        looks = [
            (getattr(handle, "get_marker", str)(), handle.get_linestyle(), getattr(handle, "get_hatch", str)(),
             str(getattr(handle, "get_markerfacecolor", str)()) == "white")
            for handle in legend.legend_handles if not is_letter(handle.get_label())
        ]  # fmt: skip
        if all(marker for marker, *_ in looks):
            assert len(set(looks)) == len(looks)


def measure_luminance(colour):
    from matplotlib.colors import to_rgb

    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), to_rgb(colour), strict=True))


def test_neighbours_in_a_bar_of_costs_differ_in_hatch_and_mostly_in_lightness():
    fills = load_analysis("cost").FILLS
    assert all(first[1] != second[1] for first, second in itertools.pairwise(fills))
    steps = [abs(measure_luminance(a) - measure_luminance(b)) for (a, _), (b, _) in itertools.pairwise(fills)]
    assert sum(step > 0.08 for step in steps) >= len(steps) - 1
    assert len({measure_luminance(colour) for colour in COLOURS}) == len(COLOURS)


@pytest.mark.parametrize("name", NAMES)
def test_the_caption_is_below_the_picture_or_only_beside_it(name):
    module, record = load_analysis(name), record_of(name, "usual")
    caption = module.write_caption(record)
    assert re.search(r"\bn\b|over the trials|seeds", caption)
    assert "nan" not in caption.split()
    assert caption.endswith(".")
    assert "2 failed" in caption
    whole, bare = picture_of(name, "usual"), module.plot(record, replace(COLUMN, caption=False))
    assert " ".join(whole.get_supxlabel().split()) == " ".join(caption.split())
    assert not bare.get_supxlabel()
    assert not bare.get_suptitle()
    assert bare.get_figheight() < whole.get_figheight()


def test_figures_of_one_seed_say_that_nothing_has_an_interval():
    for name in (
        "figure2_proxies",
        "figure3_otdd_vs_error",
        "figure4_freezing",
        "figure5_pretraining",
        "table_effects",
    ):
        assert "Every n is 1" in load_analysis(name).write_caption(record_of(name, "one seed"))
        assert "Every n is 1" not in load_analysis(name).write_caption(record_of(name, "usual"))


@pytest.mark.parametrize("name", NAMES)
def test_no_picture_shows_a_folder(name):
    """The words of a user's own data are the names of its files, not where they are on a machine."""
    figure = picture_of(name, "own data")
    assert not [text for text, _ in find_texts(figure) if "/home" in text or "a folder/" in text.replace("\n", "")]


# Files --------------------------------------------------------------------------------------------


def test_a_pdf_has_embedded_truetype_fonts_and_equal_tables_give_equal_bytes(tmp_path):
    results = CASES["other letters"]("figure5_pretraining")
    first, second = (make_output("figure5_pretraining", results) for _ in range(2))
    pdf = render_figure(first.figure, "pdf")
    assert pdf == render_figure(second.figure, "pdf")
    assert pdf.count(b"/FontFile2") >= 2  # the usual font, and that of the Japanese letters
    assert b"/Type3" not in pdf
    assert b"/CreationDate" not in pdf
    assert b"IPAexGothic" in pdf


def test_an_svg_shows_the_same_without_the_fonts_and_a_png_has_300_dots_per_inch(tmp_path):
    from matplotlib.image import imread

    paths = write_analysis(tmp_path, "table_effects", CASES["one task"]("table_effects"), {"width": "column"})
    svg, png = ((tmp_path / f"table_effects.{kind}").read_bytes() for kind in ("svg", "png"))
    assert b"<text" not in svg
    assert imread(tmp_path / "table_effects.png").shape[1] == 3.25 * 300
    assert png
    caption = (tmp_path / "table_effects.caption.txt").read_text()
    assert caption.startswith(
        "Paired difference of each cell to the base cell: mean and 95% Student-t interval over n pairs"
    )
    assert [path.name for path in paths] == [
        f"table_effects.{kind}" for kind in ("csv", "md", "tex", "png", "svg", "pdf", "caption.txt")
    ]


@pytest.mark.parametrize("name", ["figure3_otdd_vs_error", "table_effects", "half_normal", "cost"])
def test_a_style_of_the_user_changes_no_byte_and_stays_his(name):
    """Also one that would need LaTeX, crop the picture, or lay it out anew."""
    import matplotlib

    mine = {
        "axes.grid": True, "axes.facecolor": "#222222", "figure.facecolor": "black", "text.color": "white",
        "savefig.bbox": "tight", "savefig.facecolor": "pink", "savefig.transparent": True, "figure.dpi": 37,
        "figure.constrained_layout.use": True, "font.family": ["serif"], "font.size": 20, "text.usetex": True,
        "axes.formatter.use_locale": True, "xtick.direction": "in", "xtick.top": True, "xtick.minor.visible": True,
        "axes.autolimit_mode": "round_numbers", "axes.xmargin": 0.4, "axes.titlelocation": "right", "axes.titlecolor": "red",
        "lines.markeredgewidth": 4, "legend.frameon": True, "path.sketch": (3, 50, 2), "pdf.fonttype": 3,
        "pdf.use14corefonts": True, "svg.fonttype": "none", "axes.axisbelow": False, "legend.fancybox": False,
        "hatch.color": "red",
    }  # fmt: skip
    record, style = record_of(name, "one task" if record_of(name, "one task") else "usual"), FigureStyle(font_size=6)
    usual = render_figure(load_analysis(name).plot(record, style), "svg")
    with matplotlib.rc_context(mine):
        settings = dict(matplotlib.rcParams)
        figure = load_analysis(name).plot(record, style)
        assert render_figure(figure, "svg") == usual
        assert dict(matplotlib.rcParams) == settings


# Letters ------------------------------------------------------------------------------------------


def test_letters_that_the_usual_font_lacks_come_from_another():
    assert fonts.choose_families("éàüßøñç μ² ω η · …") == ("DejaVu Sans",)
    assert "IPAexGothic" in fonts.choose_families("学習率のデータ")
    assert fonts.find_missing_letters("学習率 naïve 對時間") == ""
    wide, narrow = (fonts.measure_width(text, 8) for text in ("学習率", "abc"))
    assert wide == pytest.approx(24, rel=0.1)
    assert narrow < 16
    figure = picture_of("figure2_proxies", "other letters")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        render_figure(figure, "png")
        figure.savefig(io.BytesIO(), format="png")


def test_letters_without_a_font_are_named_with_what_to_install():
    results = hard_tables({"proxy": ["none", "ሀሁ\U0001f9ea"]})
    (warning,) = make_output("table_effects", results).warnings
    assert warning.startswith("no installed font has ")
    for words in ("\U0001f9ea (U+1F9EA)", "Install a font that has them, such as Noto Sans CJK", "'orca-sweep[cjk]'"):
        assert words in warning
    assert make_output("table_effects", hard_tables({"proxy": ["none", "mnist5k"]})).warnings == ()


def test_lines_end_between_words_and_only_then_within_them():
    wrapped = fonts.wrap_text("undecided (n = 5, p 0.376)", 60, 8)
    assert wrapped.splitlines() == ["undecided", "(n = 5,", "p 0.376)"]
    long = fonts.wrap_text("x" * 100, 50, 8)
    assert long.replace("\n", "") == "x" * 100
    assert all(fonts.measure_width(line, 8) <= 50 for line in long.splitlines())
    assert fonts.wrap_text("学習率のデータ", 20, 8).splitlines() == ["学習", "率の", "デー", "タ"]
    assert fonts.wrap_text("one two three four", 30, 8, 2).endswith(" …")
    assert fonts.wrap_text("", 30, 8) == ""
    assert fonts.wrap_text("title\nbase -1", 300, 8) == "title\nbase -1"


def test_labels_stay_different_whatever_the_room():
    labels = [f"/data/{i}/signals.npz kind=classification" for i in range(9)] + ["a" * 200 + "b", "a" * 200 + "c"]
    assert len(set(fonts.fit_labels(labels, 40, 8, 3))) == len(labels)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.0, 0.5, 1.0], ["0", "0.5", "1.0"]),
        ([-0.02, 0.0, 0.02], ["-0.02", "0", "0.02"]),
        ([0, 100, 200], ["0", "100", "200"]),
        ([1e-9, 2e-9], ["1e-9", "2e-9"]),
        ([0.0, 5e11, 1e12], ["0", "5e11", "1e12"]),
        ([123456.0001, 123456.0002], ["123456.0001", "123456.0002"]),
        ([0.0], ["0"]),
        ([], []),
    ],
)
def test_ticks_have_the_digits_that_distinguish_them(values, texts):
    assert [text.replace(MINUS, "-") for text in format_tick_labels(values)] == texts


# Options ------------------------------------------------------------------------------------------


def test_widths_have_names_and_wrong_sizes_are_refused_with_what_to_do():
    assert (read_style("column").width, read_style("page").width, read_style("5.5").width) == (3.25, 6.75, 5.5)
    assert read_style() == FigureStyle()
    assert read_style(no_caption=True).caption is False
    for asked, words in (
        ({"width": "banana"}, "width = 'banana': a width is column, page, or a number of inches, such as 5.5."),
        ({"width": "nan"}, "width = nan: a number of inches from 2 to 40 is allowed."),
        ({"width": "0.1", "font_size": 99}, "font-size = 99: a number of points from 4 to 24 is allowed."),
        ({"width": "column", "font_size": 16}, "Choose at most 13 points, or a larger --width."),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            read_style(**asked)


def test_the_command_draws_at_a_width(tmp_path, monkeypatch, capsys):
    from tests.builders.tables import BASE, BETTER, MNIST, NONE, cell_rows, sweep

    sweep(tmp_path, cell_rows(NONE, BASE), cell_rows(MNIST, BETTER))
    words = ("analyse", "table_effects", tmp_path / "tables", "-o", tmp_path / "out")
    assert command(monkeypatch, *words, "--width", "column", "--font-size", "7", "--no-caption") == 0
    assert b"/MediaBox [ 0 0 234 " in (tmp_path / "out" / "table_effects.pdf").read_bytes()
    assert (tmp_path / "out" / "table_effects.caption.txt").read_text().endswith(".\n")
    assert command(monkeypatch, *words, "--width", "wide") == 2
    assert "width = 'wide': a width is column, page, or a number of inches" in capsys.readouterr().err
