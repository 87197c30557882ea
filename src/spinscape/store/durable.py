"""Files that are there whole or not at all, and folders that one process writes to."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

__all__ = ["RunError", "locked", "replaced", "synced", "writing"]

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class RunError(ValueError):
    """A run directory that cannot be used as asked: one line with the path and the remedy."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a `RunError` that names the path and a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            remedy = "free some space and run the same command again: finished parts are kept"
        else:
            remedy = "choose a directory that can be written"
        raise RunError(f"cannot write {path}: {error.strerror or error}; {remedy}") from error


def locked(directory: Path) -> int:
    """Lock a directory against other processes until the returned descriptor is closed.

    Raises
    ------
    RunError
        Another process, or another part of this one, holds the lock.
    """
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode(errors="replace") or "unknown"
        os.close(descriptor)
        raise RunError(
            f"{directory} is in use by process {holder}; wait until it is closed there, or "
            "choose another directory"
        ) from None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def replaced(path: Path, text: str, beside: Path) -> None:
    """Write a text file by way of another one in folder `beside` of the same file system."""
    temporary = beside / uuid4().hex
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    synced(path.parent, deep=False)


def synced(directory: Path, *, deep: bool = True) -> None:
    """Have the disk hold a directory, and unless told otherwise every file and folder in it."""
    for path in [*(directory.rglob("*") if deep else ()), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
