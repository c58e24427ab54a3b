"""Fetches published files: resumes downloads, checks them, and never takes an error page for data."""

import json
import os
import shutil
import tarfile
import uuid
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote, urlparse

from filelock import FileLock
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from orca_sweep.data.conversion import File
from orca_sweep.data.pointers import pointer_problem
from orca_sweep.data.readers import DAMAGED
from orca_sweep.errors import DataError
from orca_sweep.record_files import explain_unreadable, read_regular_file

HASHES = "hashes.json"
"""File below the data root with the hashes, at first download, of files without a published hash."""
BLOCK = 2**16
"""Bytes read at a time, and the most that is lost when a connection breaks."""
TIMEOUT_S = 60
HASHES_FILE: TypeAdapter[dict[str, str]] = TypeAdapter(
    dict[str, Annotated[str, Field(pattern=r"^(md5|sha1|sha256|sha512):[0-9a-f]{32,128}$")]]
)
UNPACKED_FACTOR, UNPACKED_BYTES = 100, 2**28
"""Limits for a server that compresses although asked not to: this many times the announced bytes, or this many bytes,
whichever is more."""
Report = Callable[[str, int, int | None], None]
"""(file, bytes so far, total bytes if known)."""
PAGE_STARTS = (b"<!doctype", b"<html", b"<head", b"<?xml")


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """The outcome for one file."""

    path: str
    how: str
    """In words: ``is there``, ``fetched from ...`` or ``unpacked from ...``."""


def fetch_files(
    files: Iterable[File], root: Path, base_url: str | None = None, report: Report = lambda name, done, total: None
) -> list[Fetched]:
    """Downloads missing files and returns what was done for each file.

    An interrupted download resumes where it stopped, if the server allows it. Status, content type and length are
    checked. The hash must equal the published one, or else the one recorded at the first download. ``base_url`` is a
    mirror: a folder, or a server that has the files under their paths below the data root.

    Raises:
        DataError: with every file that cannot be fetched, each with its remedy, after all other files are fetched.
    """
    source, files = _Source(root, base_url, report), tuple(files)
    outcomes: list[Fetched] = []
    problems: list[str] = []

    def attempt_fetch(file: File) -> None:
        try:
            outcomes.append(source.fetch_one(file))
        except DataError as error:
            problems.append(str(error))

    for file in files:
        attempt_fetch(file)
    for file in files:
        for name in find_missing_members(file, root):
            attempt_fetch(File(path=name, archive=file.archive, url=file.url, hash=file.hash))
    if problems:
        raise DataError("\n".join([*dict.fromkeys(problems)][:20]))
    return outcomes


def find_missing_members(file: File, root: Path) -> list[str]:
    """Returns the missing files that a list names; none if the list itself is missing."""
    if file.members is None or not (root / file.path).is_file():
        return []
    return [name for name in file.members(root) if not (root / name).is_file()]


class _Source:
    """Where files come from: a mirror, or each file's own address; and where they go."""

    def __init__(self, root: Path, base_url: str | None, report: Report) -> None:
        self.root, self.report = root, report
        self.mirror = None if base_url is None else _to_url(base_url)

    def fetch_one(self, file: File) -> Fetched:
        """Brings one file below the root, from its archive if it comes in one."""
        if (self.root / file.path).is_file():
            return Fetched(path=file.path, how="is there")
        if file.archive and (self.mirror is None or (self.root / file.archive).is_file()):
            return self._fetch_from_archive(file, file.archive)
        if self.mirror is None and file.url is None:
            raise DataError(
                f"{self.root / file.path}: there is no address to fetch it from. Get it from the task's source"
                " (orca-sweep data check names it), or name a mirror with --base-url."
            )
        url = self._find_url(file, file.path)
        try:
            # A mirror's copy of an unpacked file has no separate published hash.
            self._download(url, replace(file, hash=None) if file.archive else file)
        except DataError:
            if not file.archive:
                raise
            return self._fetch_from_archive(file, file.archive)  # the mirror may have it packed
        return Fetched(path=file.path, how=f"fetched from {url}")

    def _find_url(self, file: File, name: str) -> str:
        return str(file.url) if self.mirror is None else f"{self.mirror}/{quote(name)}"

    def _fetch_from_archive(self, file: File, archive: str) -> Fetched:
        path = self.root / archive
        if not path.is_file():
            self._download(self._find_url(file, archive), File(path=archive, hash=file.hash))
        unpack_archive(path, self.root)
        if not (self.root / file.path).is_file():
            raise DataError(f"{path}: unpacked, but there is no {file.path} in it. Is it the right archive?")
        return Fetched(path=file.path, how=f"unpacked from {archive}")

    def _download(self, url: str, file: File) -> None:
        target = self.root / file.path
        part = target.with_name(f".{target.name}.orca-sweep-part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{part}.lock"):  # two processes that fetch at once would write into one part
                if not target.is_file():
                    self._download_under_lock(url, file, part)
        except OSError as error:
            raise DataError(
                f"{target}: cannot be written ({error.strerror or error}). Make room or give access."
            ) from None

    def _download_under_lock(self, url: str, file: File, part: Path) -> None:
        import pooch
        import requests

        target, known = self.root / file.path, file.hash or recorded_hashes(self.root).get(file.path)
        downloader = _Downloader(part, lambda done, total: self.report(file.path, done, total))
        try:
            pooch.get_logger().setLevel("WARNING")  # the progress bar shows what is fetched
            pooch.retrieve(url, known, target.name, target.parent, downloader=downloader)
        except requests.RequestException as error:
            raise DataError(
                f"{url}: {type(error).__name__}: {error}. Check the address and the network and run it again: the"
                " download resumes."
            ) from None
        except ValueError as error:  # pooch raises it if the hash differs
            part.unlink(missing_ok=True)
            which = "published" if file.hash else "recorded at the first download"
            raise DataError(
                f"{url}: its hash is not the {which} one ({known}): {str(error).splitlines()[0]} The file was not kept."
                f" Fetch it again; if it has changed on purpose, remove its line from {self.root / HASHES}."
            ) from None
        if known is None:
            _check_new(file, target, self.root)
            _record_hash(self.root, file.path, f"sha256:{pooch.file_hash(str(target))}")


def _to_url(base: str) -> str:
    return base.rstrip("/") if "://" in base else Path(os.path.realpath(Path(base).expanduser())).as_uri()


def _check_new(file: File, target: Path, root: Path) -> None:
    """Removes a new file without a published hash if the task cannot read it."""
    if file.check is None:
        return
    try:
        file.check(root)
    except DataError as error:
        target.unlink(missing_ok=True)
        raise DataError(f"{error} It has just been downloaded, and was not kept.") from None


def recorded_hashes(root: Path) -> dict[str, str]:
    """Returns the hashes recorded at first downloads, by path below the data root.

    Raises:
        DataError: if their file is damaged, because the hashes of earlier downloads must not get lost.
    """
    path = root / HASHES
    try:
        blob = read_regular_file(path)
        return {} if blob is None else HASHES_FILE.validate_json(blob)
    except OSError as error:
        why = explain_unreadable(error)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        why = f"damaged ({': '.join([*map(str, first['loc']), first['msg']])})"
    raise DataError(
        f"{path}: {why}. Correct it, or move it away: the next download of each file then counts as its first."
    )


def _record_hash(root: Path, name: str, digest: str) -> None:
    with FileLock(str(root / f".{HASHES}.lock")):
        known = {**recorded_hashes(root), name: digest}
        temporary = root / f".{HASHES}.{uuid.uuid4().hex}.tmp"
        temporary.write_text(json.dumps(known, indent=1, sort_keys=True), encoding="utf-8")
        os.replace(temporary, root / HASHES)


class _Part(TypedDict):
    url: str
    tag: str


PART_FILE: TypeAdapter[Any] = TypeAdapter(_Part)
"""The file beside a partial download: its address and the server's tag of the version."""


def _is_compressed(headers: Any) -> bool:
    return headers.get("Content-Encoding", "identity").lower() not in ("", "identity")


class _Downloader:
    """Downloads a URL into a partial file, which later calls resume, and moves it into place when complete."""

    def __init__(self, part: Path, report: Callable[[int, int | None], None]) -> None:
        self.part, self.report = part, report
        self.state = part.with_name(f"{part.name}.json")

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:
        if urlparse(url).scheme == "file":
            self._copy_file(Path(unquote(urlparse(url).path)))
        else:
            self._request(url)
        self._refuse_page(url)
        os.replace(self.part, output_file)
        self.state.unlink(missing_ok=True)

    def _copy_file(self, source: Path) -> None:
        try:
            total, data = source.stat().st_size, source.open("rb")
        except OSError as error:
            is_missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            why = "is not in this mirror" if is_missing else f"cannot be read ({error.strerror or error})"
            raise DataError(f"{source}: {why}. Put it there, or name another with --base-url.") from None
        with data, self.part.open("wb") as file:
            while block := data.read(BLOCK):
                file.write(block)
                self.report(file.tell(), total)

    def _request(self, url: str, again: bool = True) -> None:
        import requests

        have = self.part.stat().st_size if self.part.is_file() else 0
        headers = {"Accept-Encoding": "identity"}
        tag = self._read_tag(url)
        if have and tag:
            headers |= {"Range": f"bytes={have}-", "If-Range": tag}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
            if answer.status_code == 416 and have and again:
                self.part.unlink()  # the part was complete, or of another file: start again
                return self._request(url, again=False)
            if answer.status_code not in (200, 206):
                raise DataError(
                    f"{url}: the server answers {answer.status_code} {answer.reason}. Nothing was kept. Get the file"
                    " from the task's source, or name a mirror with --base-url."
                )
            if "html" in answer.headers.get("Content-Type", "").lower():
                raise DataError(
                    f"{url}: the server sends a web page, not a file. Nothing was kept. Get the file from the task's"
                    " source, or name a mirror with --base-url."
                )
            goes_on = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if answer.status_code == 206 and not goes_on:
                raise DataError(
                    f"{url}: the server sent other bytes than requested. Delete {self.part} and run it again."
                )
            self._keep_tag(url, answer.headers)
            return self._write_answer(url, answer, have if goes_on else 0)

    def _write_answer(self, url: str, answer: Any, start: int) -> None:
        length = answer.headers.get("Content-Length", "")
        announced, free = int(length) if length.isdigit() else None, shutil.disk_usage(self.part.parent).free
        is_compressed = _is_compressed(answer.headers)
        total = None if announced is None or is_compressed else start + announced
        if announced is not None and announced > free:
            raise DataError(f"{self.part.parent}: {announced / 2**30:.1f} GiB are needed. Make room.")
        most = min(free, max(UNPACKED_BYTES, UNPACKED_FACTOR * (announced or 0))) if is_compressed else free
        with self.part.open("ab" if start else "wb") as file:
            for block in answer.iter_content(BLOCK):
                if file.tell() - start + len(block) > most:
                    raise self._too_much(url, most, is_compressed)
                file.write(block)
                self.report(file.tell(), total)
            size = file.tell()
        if total is not None and size != total:
            raise DataError(f"{url}: {size} of {total} bytes came. Run it again: the download resumes.")

    def _too_much(self, url: str, most: int, is_compressed: bool) -> DataError:
        self.part.unlink()
        if is_compressed:
            return DataError(
                f"{url}: the server sends it compressed, and it unpacks to more than {most:,} bytes. Nothing was kept. Get"
                " the file from the task's source, or name a mirror with --base-url."
            )
        return DataError(f"{url}: it is larger than the {most:,} bytes that are free in {self.part.parent}. Make room.")

    def _read_tag(self, url: str) -> str | None:
        """Returns the server's tag of the version that the part belongs to."""
        with suppress(OSError, ValueError):  # without a tag the download starts again
            part: dict[str, str] = PART_FILE.validate_json(read_regular_file(self.state) or b"")
            return part["tag"] if part["url"] == url else None
        return None

    def _keep_tag(self, url: str, headers: Any) -> None:
        tag = headers.get("ETag") or headers.get("Last-Modified")
        if _is_compressed(headers):
            self.state.unlink(missing_ok=True)  # a part of the compressed bytes is not a part of the file
        elif tag and not tag.startswith("W/"):  # a weak tag does not identify the bytes
            self.state.write_text(json.dumps({"url": url, "tag": tag}), encoding="utf-8")

    def _refuse_page(self, url: str) -> None:
        with self.part.open("rb") as file:
            start = file.read(64).lstrip().lower()
        if start.startswith(PAGE_STARTS) or not start:
            self.part.unlink()
            raise DataError(f"{url}: {'a web page' if start else 'nothing'} came, not a file. It was not kept.")
        if pointer_problem(self.part):
            self.part.unlink()
            raise DataError(
                f"{url}: the server sent a Git LFS pointer, not the file itself. It was not kept. Get the file from the"
                " task's source, or name a mirror with --base-url."
            )


def unpack_archive(archive: Path, root: Path, most: int = 2**37) -> None:
    """Unpacks a .zip or .tar.gz below the data root, and nowhere else; existing files stay as they are.

    Raises:
        DataError: if the archive is damaged, leads out of the root, or unpacks to more than ``most`` or the free space.
    """
    free = min(most, shutil.disk_usage(root).free)
    folder = root / f".unpack-{uuid.uuid4().hex}"
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as packed:
                _refuse_bomb(archive, sum(info.file_size for info in packed.infolist()), free)
                packed.extractall(folder)  # noqa: S202 - zipfile removes roots and ".." from names
        else:
            with tarfile.open(archive) as packed:
                _refuse_bomb(archive, sum(member.size for member in packed), free)
                _extract_data(packed, folder)
        for path in sorted(folder.rglob("*")):
            target = root / path.relative_to(folder)
            if path.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
    except (*DAMAGED, tarfile.TarError, OSError) as error:
        raise DataError(f"{archive}: cannot be unpacked ({type(error).__name__}: {error}). Fetch it again.") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _extract_data(packed: tarfile.TarFile, folder: Path) -> None:
    """Extracts files and folders; nothing may lead out of the folder.

    Python before 3.11.4 has no filter for this. There, an archive with anything but plain files and folders is refused.
    """
    if hasattr(tarfile, "data_filter"):
        packed.extractall(folder, filter="data")
        return
    for member in packed:
        target = Path(os.path.normpath(folder / member.name))
        if not target.is_relative_to(folder) or not (member.isreg() or member.isdir()):
            raise tarfile.TarError(f"{member.name!r} leads out of the archive's folder, or is not a plain file")
        content = packed.extractfile(member)
        if content is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file)


def _refuse_bomb(archive: Path, size: int, free: int) -> None:
    if size > free:
        raise DataError(
            f"{archive}: it unpacks to {size / 2**30:.1f} GiB, but only {free / 2**30:.1f} GiB are free. Make room."
        )
