"""How far long work has come, in the log: each step with the seconds it took."""

from __future__ import annotations

import logging
import time


class Progress:
    """Logs each finished step of ``name`` with its own and all seconds; ``seconds`` holds the steps'."""

    def __init__(self, name: str) -> None:
        self.seconds: dict[str, float] = {}
        self._log = logging.getLogger(f"immunomod.{name}")
        self._start = self._last = time.monotonic()

    def __call__(self, step: str) -> None:
        """A step is done."""
        now = time.monotonic()
        self.seconds[step] = now - self._last
        self._log.info("%s: %.1f s (%.1f s in all)", step, now - self._last, now - self._start)
        self._last = now
