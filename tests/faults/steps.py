"""What a fault run has done, as it goes: its seed, and each step with the time it took."""

import os
import random
import time

VARIABLE = "NEARFEED_FAULT_SEED"


def chosen_seed() -> int:
    """From the environment, else drawn; printed, so that a failing run can be seen again."""
    seed = int(os.environ.get(VARIABLE) or random.randrange(1 << 30))
    print(f"{VARIABLE}={seed}", flush=True)
    return seed


class Steps:
    """Prints what was done and when, seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def done(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {what}", flush=True)
