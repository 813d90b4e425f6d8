"""Folders and files that only their owner can read, written all at once or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def private_folder(path: Path) -> Path:
    """Create `path` (mode 0700) with its parents if needed, and return it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    return path


def write_private(path: Path, content: str | bytes) -> None:
    """Write a 0600 file atomically: a reader sees the old content or the new, also after a power cut."""
    data = content.encode() if isinstance(content, str) else content
    # mkstemp makes the file 0600 from the start, whatever the umask
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def locked(path: Path, timeout_s: float = 600.0) -> Iterator[None]:
    """Hold the exclusive lock `path`; the kernel gives it back even if this process is killed.

    Raises TimeoutError if somebody else holds it for longer than `timeout_s`.
    """
    private_folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _acquire(handle, path, timeout_s)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, path: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process holds {path}") from None
            time.sleep(0.05)
