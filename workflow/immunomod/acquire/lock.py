"""One job at a time brings a file that several samples of a data set need: the others wait, and find it there.

The samples of a data set are fetched by jobs of their own. What they have in common (the series' SOFT file and listing,
an archive of all samples, a shared table of genes) must arrive once all the same.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from immunomod.acquire.disk import write_error

POLL_S = 0.1
#: What file systems answer that know no locks: the file is then fetched by each job, and the last rename stands.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}

log = logging.getLogger(__name__)


@contextmanager
def only_job(target: Path, go_on: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold ``target`` for this process and thread; waits for whoever holds it. A killed holder lets go.

    Parameters
    ----------
    target
        A file or folder that is about to be made; the lock is a hidden file beside it, gone afterwards.
    go_on
        Called while waiting; what it raises ends the wait.

    Raises
    ------
    UserError
        The folder cannot be written to.
    """
    path = target.with_name(f".{target.name}.lock")
    handle = _acquire(path, go_on)
    try:
        yield
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)  # while it is held: who waited for it sees that the name is gone
            handle.close()


def _acquire(path: Path, go_on: Callable[[], None]) -> IO[bytes] | None:
    """The open, locked file; None where the file system has no locks."""
    told = False
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = path.open("ab")
        except OSError as error:
            raise write_error(error, path) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(handle, path):
                return handle
        except OSError as error:
            if error.errno in NO_LOCKS:
                handle.close()
                return None
            if not told:
                log.info("another job is fetching %s: waiting for it", path.name[1:].removesuffix(".lock"))
                told = True
            time.sleep(POLL_S)
        except BaseException:
            handle.close()
            raise
        handle.close()
        go_on()


def _is_named(handle: IO[bytes], path: Path) -> bool:
    """Whether ``path`` still names the open file; its last holder may have removed it."""
    try:
        return os.fstat(handle.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
