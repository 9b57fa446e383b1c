"""When the next request may go out: one rate for all threads of a process, pauses that a server asks for, and the end.

The rate holds for one process. Several jobs at once (several data sets) each have their own: at the default of five a
second, ten jobs reach the fifty from which the public server refuses.
"""

from __future__ import annotations

import threading
import time


class StoppedError(Exception):
    """The work was called off: another file failed, or the user interrupted."""


class Pace:
    """Keeps a minimum distance between requests of all threads, and pauses those to one host.

    Parameters
    ----------
    requests_per_s
        Upper bound on the rate of requests, to all hosts together.
    """

    def __init__(self, requests_per_s: float) -> None:
        self._interval = 1.0 / requests_per_s
        self._lock = threading.Lock()
        self._next = 0.0
        self._held: dict[str, float] = {}
        self._stopped = threading.Event()

    def wait(self, host: str) -> None:
        """Return when a request to ``host`` may go out.

        Raises
        ------
        StoppedError
            :meth:`stop` was called.
        """
        while True:
            self.go_on()
            with self._lock:
                now = time.monotonic()
                ready = max(self._next, self._held.get(host, 0.0))
                if ready <= now:
                    self._next = now + self._interval
                    return
            self.sleep(ready - now)

    def hold(self, host: str, seconds: float) -> None:
        """Let no thread's request to ``host`` go out for some seconds."""
        with self._lock:
            self._held[host] = max(self._held.get(host, 0.0), time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Sleep, unless the work is called off.

        Raises
        ------
        StoppedError
            :meth:`stop` was called.
        """
        if self._stopped.wait(max(0.0, seconds)):
            raise StoppedError

    def go_on(self) -> None:
        """Raise :class:`StoppedError` if the work was called off."""
        if self._stopped.is_set():
            raise StoppedError

    def stop(self) -> None:
        """Call the work off: every thread that waits, or asks, raises :class:`StoppedError`."""
        self._stopped.set()
