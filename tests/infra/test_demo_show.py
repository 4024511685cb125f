"""Laws of what a person sees: something always moves, in a log as on a terminal."""

import io

import pytest
from rich.console import Console

from infra.demo.show import Show


def test_a_log_gets_a_line_of_progress_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.demo.show._LINE_EVERY_S", 0.0)
    text = io.StringIO()
    with Show(Console(file=text, width=100)).progress("past acts", 200) as bar:
        bar.at(50, "sent")
        bar.at(250)
    assert [line.strip() for line in text.getvalue().splitlines() if line.strip()] == [
        "past acts: 25 % sent",
        "past acts: 100 %",
    ]


def test_a_log_is_not_flooded() -> None:
    text = io.StringIO()
    with Show(Console(file=text, width=100)).progress("past acts", 200) as bar:
        for done in range(200):
            bar.at(done)
    assert text.getvalue().strip() == ""


def test_nothing_to_do_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.demo.show._LINE_EVERY_S", 0.0)
    text = io.StringIO()
    with Show(Console(file=text, width=100)).progress("past acts", 0) as bar:
        bar.at(0)
    assert "past acts: 100 %" in text.getvalue()


def test_a_terminal_gets_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.demo.show._LINE_EVERY_S", 0.0)
    text = io.StringIO()
    with Show(Console(file=text, width=100, force_terminal=True)).progress("past acts", 200) as bar:
        bar.at(50, "sent")
    assert "past acts" in text.getvalue() and "past acts: 25 %" not in text.getvalue()


def test_steps_carry_the_time_since_the_start_and_tables_their_numbers() -> None:
    text = io.StringIO()
    show = Show(Console(file=text, width=100))
    show.step("Replay")
    show.table("counts", [{"what": "events", "count": 12345, "share": 0.25}])
    show.table("empty", [])
    assert "[0:00] Replay" in text.getvalue()
    assert "12,345" in text.getvalue() and "0.2500" in text.getvalue() and "nothing" in text.getvalue()
