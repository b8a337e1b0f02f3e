"""Ends a process whose work has shown no sign of life for too long: what RQ's time-out cannot do (E8).

The clock is a thread of C, which fires even where Python stands still: in a driver, or in a library that keeps the
interpreter to itself. It is wound up anew as long as the claim on the job gives signs of life.
"""

import faulthandler
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from app.core import jobs

STDERR: Final = 2  # where the logs go, whatever Python has made of sys.stderr
WIND_SECONDS: Final = 5.0  # how often the clock is wound up, at most: each time costs a thread


@contextmanager
def watched(claim: jobs.Claim, minutes: float) -> Iterator[None]:
    """End this process where the work within shows no sign of life for so many minutes, with what each thread was doing
    on standard error. The worker hands the job on as soon as its horse is gone."""
    over = threading.Event()
    seconds = minutes * 60
    winder = threading.Thread(target=_wind, args=(claim, seconds, over), name="watchdog", daemon=True)
    winder.start()
    try:
        yield
    finally:
        over.set()
        winder.join()
        faulthandler.cancel_dump_traceback_later()


def _wind(claim: jobs.Claim, seconds: float, over: threading.Event) -> None:
    seen = None
    while seen is None or not over.wait(min(WIND_SECONDS, seconds / 4)):
        if claim.alive_at != seen:
            seen = claim.alive_at
            faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)
