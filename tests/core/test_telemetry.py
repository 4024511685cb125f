"""What a process shows of itself: a metrics endpoint, well-named metrics, one log format."""

import logging
import re
import socket
import urllib.request

import pytest
from prometheus_client import Counter, Gauge, Histogram

from core import telemetry
from core.errors import NotReady

METRICS = {name: value for name, value in vars(telemetry).items() if isinstance(value, Counter | Gauge | Histogram)}


def test_endpoint_on_any_free_port_shows_every_metric() -> None:
    telemetry.MODEL_VERSION.set(17)
    port = telemetry.serve_metrics(0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert port > 0
    assert "nearfeed_model_version 17.0" in text
    assert all(f"# HELP {metric._name}" in text for metric in METRICS.values())


def test_taken_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NotReady, match=rf"^port {port} cannot be listened on"):
            telemetry.serve_metrics(port)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
def test_metric_has_our_prefix_help_and_its_unit(metric: Counter | Gauge | Histogram) -> None:
    assert re.fullmatch(r"nearfeed_[a-z_]+", metric._name)
    assert metric._documentation
    assert not isinstance(metric, Histogram) or metric._name.endswith("_seconds")


def test_labels_are_bounded_by_name() -> None:
    """A user, item or request as label would make one series each."""
    labels = {label for metric in METRICS.values() for label in metric._labelnames}
    assert labels <= {"stage", "reason", "method", "status", "fate", "joined", "result"}


def test_log_line_names_process_and_logger(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        telemetry.configure_logging("INFO", "scorer")
        logging.getLogger("grpc_api.server").info("model.swap.complete version=17 took_ms=412")
        logging.getLogger("grpc_api.server").debug("unheard")
        logging.getLogger("kafka.conn").info("unheard")
        line = capsys.readouterr().err
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
        root.handlers[:], root.level = before
        logging.getLogger("kafka").setLevel(logging.NOTSET)
    assert re.fullmatch(r"\S+ \S+ INFO scorer grpc_api\.server: model\.swap\.complete version=17 took_ms=412\n", line)
