"""The one exception for a user's mistake, and how a program ends on it: one message, no traceback, exit status 1."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something the user can mend. The text says what is wrong, where (file, row, column) and what to do."""


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Print a :class:`UserError` as one message on standard error and exit with status 1."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
