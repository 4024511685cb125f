"""What a commit adds to the platform's metrics."""

from typing import Final

from core.clock import Clock
from core.telemetry import FRESHNESS_SECONDS, OUTCOMES, STAGE_IN, STAGE_OUT, STAGE_REMOVED
from streams.driver import Committed

_FOLD: Final = "fold"
_ATTRIBUTION: Final = "attribution"


def observe(done: Committed, clock: Clock, speed: float) -> None:
    """Count one transaction. `speed` is platform seconds per wall second."""
    effects = done.effects
    counts = effects.counts
    applied = counts.applied + counts.impressions + counts.forgotten
    STAGE_IN.labels(_FOLD).inc(applied + counts.duplicates + done.rejected)
    STAGE_OUT.labels(_FOLD).inc(applied)
    STAGE_REMOVED.labels(_FOLD, "duplicate").inc(counts.duplicates)
    STAGE_REMOVED.labels(_FOLD, "rejected").inc(done.rejected)
    for reason in effects.let_go:
        STAGE_REMOVED.labels(_ATTRIBUTION, reason).inc()
    for outcome in effects.outcomes:
        OUTCOMES.labels("yes" if outcome.actions else "no").inc()
    now_ms = clock.now_ms()
    for recorded_ms in done.recorded_ms:
        FRESHNESS_SECONDS.observe(max(0.0, (now_ms - recorded_ms) / 1000.0 / speed))
