"""One run at a time in a folder: a lock that the system takes back when its holder ends, in whatever way it ends."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from srk.errors import ArgumentError

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make the folder and hold it for this run. Without a guard where the system (Windows) or the file system has no `flock`.

    Raises:
        ArgumentError: another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _lock(folder / LOCK)
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                (
                    folder / LOCK
                ).unlink()  # still held: who opens the file now finds that it is not the one in the folder, see _lock
            os.close(descriptor)


def _lock(path: Path) -> int | None:
    """The descriptor that holds the lock; None where there are no locks."""
    if sys.platform == "win32":
        return None
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except (
            OSError
        ):  # a folder that cannot be written; the run will say so if it has something to write
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise ArgumentError(
                f"another run writes into the folder {str(path.parent)!r} ({holder}); wait until it has ended, or give another folder"
            ) from None
        except OSError:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            return None
        if _is(path, descriptor):
            os.truncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
            return descriptor
        os.close(descriptor)  # its holder ended, and removed it, between our open and our lock


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
