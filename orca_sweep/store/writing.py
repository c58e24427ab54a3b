"""Atomic writing, and messages for refusals by the system to write."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator

import fsspec
from fsspec.implementations.local import LocalFileSystem

from orca_sweep.errors import StorageError

FULL = {
    errno.ENOSPC: "the storage is full",
    errno.EDQUOT: "the storage quota is used up",
    errno.EFBIG: "no file may become so large here",
}
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def find_full_disk(error: BaseException) -> StorageError | None:
    """Returns a StorageError if the error, or one of its causes, is a refusal to write; None otherwise."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (*FULL, errno.EROFS):
            if isinstance(error, StorageError):
                return error
            return _explain_refusal(cause.filename or "a file of a trial", cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


@contextlib.contextmanager
def explain_write_errors(path: object) -> Iterator[None]:
    """Turns an OSError in the block into a StorageError that names the file and the remedy.

    Raises:
        StorageError: in place of the OSError.
    """
    try:
        yield
    except OSError as error:
        raise _explain_refusal(path, error) from error


def _explain_refusal(path: object, error: OSError) -> StorageError:
    why = error.strerror or str(error)
    if error.errno in READ_ONLY:
        return StorageError(
            f"{path}: cannot be written: {why}. Make it writable, or name another folder with -o or --out. Saved files"
            " are not lost."
        )
    text = f"{FULL[error.errno]} ({why}). Make room" if error.errno in FULL else f"{why}. See that it can be"
    return StorageError(
        f"{path}: cannot be written: {text}, then launch again. Trials that have ended are kept; the others go on from"
        " their last saved epoch."
    )


@contextlib.contextmanager
def write_whole(path: str, fs: fsspec.AbstractFileSystem | None = None) -> Iterator[str]:
    """Yields a temporary path to write to; the file is moved to its path if the block succeeds, and deleted otherwise.

    Raises:
        StorageError: if the system refuses to write.
    """
    fs = fs or LocalFileSystem()
    parent, name = os.path.split(path)
    temporary = os.path.join(parent, f".{name}.{uuid.uuid4().hex}.tmp")
    with explain_write_errors(path):
        fs.makedirs(parent or ".", exist_ok=True)
        try:
            yield temporary
            if isinstance(fs, LocalFileSystem):
                os.replace(temporary, path)
            else:
                fs.mv(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                fs.rm(temporary)
            raise
