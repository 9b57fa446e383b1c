"""What surrounds the work of every rule: the package on its path, a log file, one message for a user's mistake.

A job also says in its log which SLURM job it is, so that a later run can tell what a former one left behind (see
:mod:`immunomod.cluster`), and ends itself where the run that started it is gone.
"""

from __future__ import annotations

import errno
import gzip
import logging
import os
import re
import signal
import socket
import sys
import threading
import traceback
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from immunomod.errors import UserError
from immunomod.files import is_damaged, remove_halves
from immunomod.parallel import for_each

WATCH_S = 1.0
#: What file systems answer that refuse to take bytes, and what the user can do about it.
REFUSED = {
    errno.ENOSPC: "no space is left on the disk; free some",
    errno.EDQUOT: "your quota of the disk is used up; free some space",
    errno.EROFS: "the file system is read-only; run in a folder that can be written to",
    errno.EACCES: "permission is denied; give yourself the right to use it",
}

log = logging.getLogger("immunomod")


def share_package_path() -> None:
    """Let the processes that Snakemake starts import the package, in whichever environment they run."""
    folder = str(Path(__file__).resolve().parents[1])
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *(path for path in known if path and path != folder)])


@contextmanager
def rule_job(snakemake: Any) -> Iterator[None]:
    """Run a rule's work: log messages and warnings go to the rule's log, a :class:`UserError` ends as one message.

    The message stands on standard error and in the log; a fault of our own leaves its traceback in the log too. Before
    the work begins, inputs are held against the checksums that their writers noted.
    """
    path = Path(snakemake.log[0])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        logging.basicConfig(
            filename=path, filemode="w", level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", force=True
        )
    except OSError as error:
        _end(str(disk_error(error, path) or error))
    logging.captureWarnings(True)
    _quiet_disk_errors(path.parent)
    warnings.simplefilter("default")
    if "SLURM_JOB_ID" in os.environ:
        log.info("SLURM job %s on %s", os.environ["SLURM_JOB_ID"], socket.gethostname())
    end_with_run()
    remove_halves(snakemake.output)
    try:
        refuse_damaged(snakemake.input, getattr(snakemake, "threads", 1))
        yield
    except UserError as error:
        log.error("error: %s", error)
        _end(str(error))
    except Exception as error:
        told = disk_error(error, path.parent) or damaged_input(snakemake.input)
        with suppress(OSError):  # the log may be on the disk that is full
            log.error("%s", traceback.format_exc())
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr, flush=True)
        _leave(1)


def _end(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1) from None


def _leave(status: int) -> NoReturn:
    """End at once: HDF5 would try again to write what the disk has refused, and crash."""
    os._exit(status)


def _quiet_disk_errors(folder: Path) -> None:
    """Let the one message speak, where HDF5 and the log tell of a full disk with every object they give up."""
    logging.raiseExceptions = False
    usual, usual_ignored = sys.excepthook, sys.unraisablehook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if disk_error(error, folder) is None:
            usual(kind, error, trace)

    def tell_ignored(ignored: Any) -> None:
        if ignored.exc_value is not None and disk_error(ignored.exc_value, folder) is None:
            usual_ignored(ignored)

    sys.excepthook, sys.unraisablehook = tell, tell_ignored


def disk_error(error: BaseException, folder: Path) -> UserError | None:
    """What to tell where the file system refused; None where ``error``, or what it came from, is something else.

    HDF5 says what the system answered in its text alone, so that is looked at too.
    """
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        if isinstance(cause, OSError | RuntimeError):
            number = getattr(cause, "errno", None)
            for code, told in REFUSED.items():
                if number == code or os.strerror(code) in str(cause):
                    named = re.search(r"filename = '([^']+)'", str(cause))
                    name = getattr(cause, "filename", None) or (named[1] if named else f"results (log in {folder})")
                    name = re.sub(r"\.[0-9a-f]{32}\.", "", str(name))
                    return UserError(f"cannot write {name}: {told}, then run again. What is finished is kept")
        cause = cause.__cause__ or cause.__context__
    return None


def refuse_unwritable(paths: Iterable[str | Path]) -> None:
    """Raise a :class:`UserError` where a file of a run could not be written, before its first job starts."""
    folders = {Path(path).absolute().parent for path in paths}
    for folder in sorted(folders):
        place = next(one for one in (folder, *folder.parents) if one.exists())
        if not os.access(place, os.W_OK):
            raise UserError(f"cannot write into {place}: give yourself the right to, or run in another folder")


def refuse_damaged(paths: Iterable[str | Path], threads: int = 1) -> None:
    """Raise a :class:`UserError` for the first of a job's HDF5 files whose bytes are not those that were written."""
    files = [path for path in map(Path, paths) if path.suffix in (".h5ad", ".h5") and path.is_file()]
    for path, damaged in zip(files, for_each(files, is_damaged, threads), strict=True):
        if damaged:
            raise _damaged(path, "its bytes are not those that were written")


def _damaged(path: Path, how: object) -> UserError:
    return UserError(f"{path} is damaged ({how}): delete it, then run again. It is then made anew")


def damaged_input(paths: Iterable[str]) -> UserError | None:
    """What to tell where a file of the run, which was whole when it was written, is so no more; None where all are.

    Looked at only where a job has failed already, so that what is whole is not read twice.
    """
    for path in map(Path, paths):
        try:
            if path.suffix in (".h5ad", ".h5"):
                import h5py

                with h5py.File(path, "r") as file:
                    file.visititems(lambda name, part: None)
            elif path.suffix == ".gz":
                with gzip.open(path) as handle:
                    while handle.read(1 << 20):
                        pass
            elif path.suffix == ".tsv" and not path.stat().st_size:
                raise OSError("it is empty")
        except (OSError, EOFError, RuntimeError, zlib.error) as error:
            return _damaged(path, error)
    return None


def end_with_run() -> None:
    """End this process soon after the run that started it was killed.

    Its output would be harmless (it is renamed into place whole), but it takes processors from the run that follows,
    and could bring back a result of settings that were changed in between. Temporary files are removed.
    """
    chain = ancestors()
    if chain and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)
        threading.Thread(target=_watch, args=(chain,), daemon=True).start()


def _stop(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _watch(chain: list[tuple[int, int]]) -> None:
    pause = threading.Event()
    while all(parent_of(process) == parent for process, parent in chain):
        pause.wait(WATCH_S)
    print("error: the run that started this job is gone, so the job ends too", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)


def ancestors() -> list[tuple[int, int]]:
    """This process and what stands between it and the run, each with its parent; empty where no run started it.

    Shells may stand there, which outlive a run that is killed; so a job looks past them.
    """
    chain: list[tuple[int, int]] = []
    process = os.getpid()
    for _ in range(8):
        parent = parent_of(process)
        if parent is None or parent <= 1:
            return []
        chain.append((process, parent))
        if is_run(parent):
            return chain
        process = parent
    return []


def is_run(process: int) -> bool:
    """Whether a process is Snakemake itself."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word.rpartition(b"/")[2] == b"snakemake" for word in words[:4])


def parent_of(process: int) -> int | None:
    """The parent of a process; None where it cannot be told."""
    if process == os.getpid():
        return os.getppid()
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
