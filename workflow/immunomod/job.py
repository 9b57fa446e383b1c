"""What surrounds the work of every rule: the package on its path, a log file, one message for a user's mistake."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from immunomod.errors import UserError


def share_package_path() -> None:
    """Let the processes that Snakemake starts import the package, in whichever environment they run."""
    folder = str(Path(__file__).resolve().parents[1])
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *(path for path in known if path and path != folder)])


@contextmanager
def rule_job(snakemake: Any) -> Iterator[None]:
    """Run a rule's work: log messages and warnings go to the rule's log, a :class:`UserError` ends as one message.

    The message stands on standard error and in the log; a fault of our own leaves its traceback in the log too.
    """
    path = Path(snakemake.log[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=path, filemode="w", level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", force=True
    )
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    try:
        yield
    except UserError as error:
        logging.getLogger("immunomod").error("error: %s", error)
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except Exception:
        logging.getLogger("immunomod").error("%s", traceback.format_exc())
        raise
