"""Finds images in folders, one folder per class."""

from dataclasses import dataclass
from pathlib import Path

from orca_sweep.data.pointers import refuse_pointer
from orca_sweep.errors import DataError
from orca_sweep.proxies.files import SPLIT_NAMES, choose_split, list_files, read_split
from orca_sweep.proxies.pixels import Picture

ENDINGS = frozenset((
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".gif",
    ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tga", ".ico",
    ".jp2", ".j2k", ".avif", ".heic", ".heif", ".pcx", ".psd", ".xbm", ".dds", ".sgi",
))  # fmt: skip
"""Files with other endings are not images. An image that the installed library cannot read is refused, not left out."""
TABLES = frozenset(("metadata.csv", "metadata.jsonl", "metadata.parquet"))


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Images and the names of their classes, in the order of their paths."""

    files: tuple[Path, ...]
    classes: tuple[str, ...]
    n_left_out: int
    """Files below the folder that are not images."""
    split: str | None
    """Name of the split's folder; None if the folder has no splits."""

    def get_picture(self, i: int) -> Picture:
        """Returns image i, which messages call by its path."""
        return Picture(where=str(self.files[i]), file=self.files[i])


def find_images(folder: Path, split: str, where: str) -> ImageFolder:
    """Returns the images below a folder, without reading them.

    The class of an image is the name of its folder. A split is a direct subfolder that holds folders of classes:
    ``train/cat/1.png``. Every image below the folder or the split is used, whatever words its name contains. Hidden
    files are left out; files without an image's ending are left out and counted.

    Raises:
        DataError: if there are no images, images outside of class folders, several splits but none named, or a metadata
            table.
    """
    paths = list_files(folder, where)
    images = [parts for parts in paths if _is_image(parts)]
    if not images:
        raise DataError(f"{where}: there are no images ({len(paths):,} other files). Name the folder that holds them.")
    _refuse_tables(paths, where)
    chosen = choose_split({parts[0] for parts in images if len(parts) > 2}, read_split(split, where).name, where)
    if chosen is not None:
        images = [parts for parts in images if parts[0] == chosen]
    _check_classes(images, chosen, where)
    for parts in images:
        refuse_pointer(folder.joinpath(*parts))
    return ImageFolder(
        files=tuple(folder.joinpath(*parts) for parts in images),
        classes=tuple(parts[-2] for parts in images),
        n_left_out=sum(not _is_image(parts) for parts in paths),
        split=chosen,
    )


def _is_image(parts: tuple[str, ...]) -> bool:
    return Path(parts[-1]).suffix.lower() in ENDINGS


def _refuse_tables(paths: list[tuple[str, ...]], where: str) -> None:
    tables = [parts for parts in paths if parts[-1].lower() in TABLES]
    if tables:
        raise DataError(
            f"{where}: {'/'.join(tables[0])} describes the images, but is not read: the class of an image is the name"
            " of its folder. Sort the images into folders, or save them with their labels as Parquet."
        )


def _check_classes(images: list[tuple[str, ...]], split: str | None, where: str) -> None:
    depth = 1 if split is None else 2
    loose = [parts for parts in images if len(parts) <= depth]
    if loose:
        raise DataError(
            f"{where}: {'/'.join(loose[0])} is not in a class folder ({len(loose):,} such images). Make a folder for each"
            " class."
        )
    classes = {parts[-2] for parts in images}
    if split is None and len(classes) > 1 and all(name.casefold() in SPLIT_NAMES for name in classes):
        raise DataError(
            f"{where}: the folders {', '.join(sorted(classes))} are named like splits, but hold images instead of class"
            " folders. Make a folder for each class in each of them."
        )
