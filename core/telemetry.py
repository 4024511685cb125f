"""What a process shows of itself: every metric of the platform, its Prometheus endpoint, its log.

Metrics are declared here and nowhere else: unit in the name, one sentence of help, bounded labels.
Three numbers are the platform's health: event-to-feature freshness, request latency at the 99th
percentile, and the share of impressions that found their outcome.

The log is one event a line, `name key=value ...`, on standard error. Never a feature vector, a token
list or a user's text.
"""

import logging
import sys
from typing import Final

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from core.errors import NotReady

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

# Every pipeline stage and every agent gives the same four: in, out, removed, seconds.
STAGE_IN: Final = Counter("nearfeed_stage_in_total", "Things that entered a stage", ["stage"])
STAGE_OUT: Final = Counter("nearfeed_stage_out_total", "Things that left a stage", ["stage"])
STAGE_REMOVED: Final = Counter("nearfeed_stage_removed_total", "Things a stage took away", ["stage", "reason"])
STAGE_SECONDS: Final = Histogram("nearfeed_stage_seconds", "Time in a stage", ["stage"], buckets=_SECONDS)

FRESHNESS_SECONDS: Final = Histogram(
    "nearfeed_freshness_seconds", "Wall time from a record's timestamp to its commit", buckets=_SECONDS
)
REQUEST_SECONDS: Final = Histogram(
    "nearfeed_request_seconds", "Time to answer a call", ["method", "status"], buckets=_SECONDS
)
DEGRADED: Final = Counter("nearfeed_degraded_total", "Answers that were degraded", ["reason"])
IMPRESSIONS: Final = Counter("nearfeed_impressions_total", "Impressions by fate: kept, failed", ["fate"])
EVENTS: Final = Counter("nearfeed_events_total", "Events at the door by fate: kept, rejected, failed", ["fate"])
OUTCOMES: Final = Counter("nearfeed_outcomes_total", "Outcomes closed, by whether an act followed", ["joined"])
QUEUE_DEPTH: Final = Gauge("nearfeed_queue_depth", "Requests in work or waiting")
MODEL_VERSION: Final = Gauge("nearfeed_model_version", "Version that answers")
MODEL_SWAPS: Final = Counter("nearfeed_model_swaps_total", "Attempts to swap the model", ["result"])
CATALOG_OFFSET: Final = Gauge("nearfeed_catalog_offset", "catalog.v1 offset applied")

# What these clients cannot do comes back as an exception, which says it in one line; every attempt would be more lines.
_QUIET: Final = ("kafka", "psycopg.pool")


def serve_metrics(port: int) -> int:
    """Serve /metrics on the loopback address; returns the port, which is a free one for 0.

    Raises:
        NotReady: another process has the port.
    """
    try:
        server, _ = start_http_server(port, addr="127.0.0.1")
    except OSError as error:
        raise NotReady(
            f"port {port} cannot be listened on ({error.strerror}), expected a free one; "
            "set NEARFEED_TELEMETRY__METRICS_PORT to another, or to 0 for any"
        ) from None
    return int(server.server_port)


def configure_logging(level: str, process: str) -> None:
    """Log to standard error as `time level process logger: event key=value`; only the command line calls this."""
    logging.basicConfig(
        level=level,
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s",
        force=True,
    )
    for library in _QUIET:
        logging.getLogger(library).setLevel(logging.CRITICAL)
