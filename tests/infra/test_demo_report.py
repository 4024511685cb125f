"""Laws of the demo's report: accounts that disagree are named, numbers are those of the run, text is text."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from infra.demo.accounts import Stored
from infra.demo.ledger import Answer, Fresh, Ledger, Reward, percentiles
from infra.demo.live import LiveResult
from infra.demo.recorded import Recorded
from infra.demo.report import write_report
from infra.demo.results import build_report, disagreements, show_results
from infra.demo.show import Show
from infra.demo.training import FirstVersion
from protos.events.v1.interaction_pb2 import Action
from protos.events.v1.outcome_pb2 import Outcome
from protos.events.v1.rejected_pb2 import Rejected

RECORDED = Recorded(
    name="tiny",
    title="A <b>tiny</b> world & its people",
    items=[],
    sequences=[],
    earlier=[],
    past=[],
    training_start_ms=0,
    imported=[],
    live=[],
    live_start_ms=0,
    speed=1.0,
    location_of=lambda user_id, at_ms: None,
)
METRICS = {
    "recall_at_10": 0.12345,
    "recall_at_10_popularity": 0.1,
    "recall_difference_low": 0.01,
    "recall_difference_high": 0.03,
    "test_exposures": 200.0,
    "watched_found": 0.33,
    "watched_predicted": 0.34,
    "watched_log_loss": 0.61,
    "watched_base_log_loss": 0.63,
    "user_model_exposures": 300.0,
    "user_model_watch_log_loss": 1.9,
    "user_model_watch_base_log_loss": 2.0,
    "user_model_watched_predicted": 0.41,
    "user_model_watched_found": 0.4,
    "user_model_likes_predicted": 0.02,
    "user_model_likes_found": 0.03,
    "item_weight": 1.5,
    "value_weight": 1.0,
    "reward_by_beam": 0.5594,
    "reward_by_item": 0.5601,
    "reward_by_value": 0.5656,
    "reward_gain_low": 0.0054,
    "reward_gain_high": 0.0069,
    "recall_at_10_by_beam": 0.09,
    "recall_at_10_by_item": 0.095,
    "recall_at_10_by_value": 0.093,
}
STORED = Stored(
    users=7, applied=90, duplicates=6, records=50, impressions=2, outcomes=3, let_go=1, rejected=4, behind=0, waiting=0
)


def ledger() -> Ledger:
    made = Ledger()
    made.count("events_sent", 104)
    made.count("kept", 99)
    for _ in range(5):
        made.refuse("action")
    made.count("requests", 2)
    made.count("poison_records")
    made.answers += [Answer(1.0, 10.0, 1, False, False), Answer(2.0, 30.0, 2, True, True)]
    made.fresh += [Fresh(1.5, 100.0)]
    made.rewards += [Reward(1.0, 1, 0.25), Reward(2.0, 1, 0.75)]
    return made


def verdict(home: Path, version: int | None) -> Path:
    reasons = ["legality: passed", f"reward: {'passed' if version else 'REFUSED, found 0.4 <= 0.5'}"]
    said = {"version": version, "reasons": reasons, "serving_reward": 0.5, "candidate_reward": 0.6}
    file = home / "verdict.json"
    file.write_text(json.dumps(said | {"difference": [0.1, 0.05, 0.15]}))
    return file


def report(home: Path, verdict_file: Path, versions: tuple[int, ...] = (1, 2)) -> dict[str, Any]:
    first = FirstVersion(1, None, None, METRICS, [])  # type: ignore[arg-type]
    outcomes = [
        Outcome(outcome_id="a", actions=[Action.ACTION_PLAY]),
        Outcome(outcome_id="b"),
        Outcome(outcome_id="c", actions=[Action.ACTION_VIEW, Action.ACTION_LIKE]),
    ]
    rejects = [Rejected(index=number) for number in (0, 1, 2)] + [Rejected(index=-1)]
    result = LiveResult(0, versions, STORED, 12.34)
    made = build_report(RECORDED, first, ledger(), result, outcomes, rejects, verdict_file)
    return made | {"wall_s": {"total": 1.0}}


@pytest.fixture
def sound(tmp_path: Path) -> dict[str, Any]:
    return report(tmp_path, verdict(tmp_path, 2))


def test_percentiles_are_those_of_the_samples_and_none_of_nothing() -> None:
    assert percentiles([]) == {"p50": None, "p99": None}
    assert percentiles([7.123456]) == {"p50": 7.12, "p99": 7.12}
    assert percentiles([float(number) for number in range(100, -1, -1)]) == {"p50": 50.0, "p99": 99.0}


def test_the_ledger_counts_refusals_by_field() -> None:
    made = ledger()
    made.refuse("play_ms")
    assert made.counts["refused"] == 6
    assert made.refusals == {"action": 5, "play_ms": 1}


def test_counts_of_the_report_are_what_was_seen_and_stored(sound: dict[str, Any]) -> None:
    assert sound["events_rejected"] == 5 + 3  # at the door, and events on the topic
    assert sound["records_rejected_on_the_topic"] == 1  # an unreadable record is no event
    assert (sound["outcomes"], sound["outcomes_joined"]) == (3, 2)  # joined: an act came
    assert (sound["degraded_requests"], sound["explored_requests"]) == (1, 1)
    assert sound["answers_by_version"] == {"1": 1, "2": 1}
    assert sound["recommend_ms"] == {"p50": 20.0, "p99": 29.8}
    assert sound["reward"]["watched_share_live"] == {"v1": 0.5, "v2": None}
    assert sound["gate"]["verdict"] == "passed"


def test_a_report_has_every_number_that_was_promised(sound: dict[str, Any]) -> None:
    promised = (
        "events_sent events_kept events_applied events_rejected duplicates_skipped requests degraded_requests "
        "illegal_items impressions_logged outcomes_joined freshness_ms recommend_ms model_versions gate reward "
        "quality values user_model wall_s"
    )
    assert set(promised.split()) <= sound.keys()
    assert {"p50", "p99"} == sound["freshness_ms"].keys() == sound["recommend_ms"].keys()
    assert {"verdict", "reasons"} <= sound["gate"].keys() and {"v1", "v2"} <= sound["reward"].keys()
    assert {"recall_at_10", "recall_at_10_popularity"} <= sound["quality"].keys()


def test_a_refused_update_says_its_reason(tmp_path: Path) -> None:
    refused = report(tmp_path, verdict(tmp_path, None), versions=(1,))
    assert refused["gate"]["verdict"] == "refused"
    assert refused["summary"].startswith("version 1 serves on")
    assert "found 0.4 <= 0.5" in refused["summary"] and "legality" not in refused["summary"]
    assert disagreements(refused) == []


def test_accounts_that_agree_are_silent(sound: dict[str, Any]) -> None:
    assert disagreements(sound) == []


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"events_applied": 89}, "events applied: found 89 in the store, expected 90"),
        ({"events_kept": 100}, "expected 91"),
        ({"duplicates_skipped": 5}, "expected 91"),
        ({"events_rejected_on_the_topic": 4}, "expected 89"),
        ({"records_rejected_on_the_topic": 0}, "unreadable records: found 0 in rejected.v1, expected the 1"),
        ({"learn_exit_code": 1}, "the policy update ended with 1, expected 0"),
        ({"answers_by_version": {"1": 2, "2": 0}}, "version 2 is current, expected it in an answer, found none"),
        ({"illegal_items": 1}, "illegal items: found 1, expected 0"),
        ({"impressions_logged": 1}, "impressions: found 1 in the log, expected 2"),
        ({"impressions_logged": 3}, "impressions: found 3 in the log, expected 2"),
    ],
)
def test_each_broken_account_is_named(sound: dict[str, Any], broken: dict[str, int], named: str) -> None:
    (line,) = disagreements(sound | broken)
    assert named in line and "look at" in line


def test_an_update_without_a_verdict_is_a_disagreement(tmp_path: Path) -> None:
    silent = report(tmp_path, tmp_path / "none.json", versions=(1,))
    assert silent["reward"]["v1"] is None and silent["reward"]["v2"] is None
    (line,) = disagreements(silent)
    assert "no verdict" in line


def test_impressions_of_calls_that_failed_are_not_held_against_the_log(sound: dict[str, Any]) -> None:
    """A call whose answer was lost may have logged its impression."""
    assert disagreements(sound | {"impressions_logged": 3, "failed_calls": {"DEADLINE_EXCEEDED": 1}}) == []


def test_the_page_has_its_plots_and_its_numbers_and_no_foreign_markup(sound: dict[str, Any], tmp_path: Path) -> None:
    as_json, page = write_report(tmp_path / "home", sound, ledger(), 0.0)
    assert json.loads(as_json.read_text()) == sound
    text = page.read_text()
    figures = re.findall(r"<figure><svg.*?</svg>\s*<figcaption>(.*?)</figcaption></figure>", text, re.DOTALL)
    assert [figure.split()[0].strip(":") for figure in figures] == ["Latency", "Freshness", "Reward"]
    assert "A &lt;b&gt;tiny&lt;/b&gt; world &amp; its people" in text and "<b>" not in text
    assert "<td>events_applied</td><td>90</td>" in text


def test_a_page_of_a_run_without_samples_is_still_a_page(tmp_path: Path) -> None:
    silent = report(tmp_path, tmp_path / "none.json", versions=(1,))
    _, page = write_report(tmp_path, silent, Ledger(), 0.0)
    assert page.read_text().count("<svg") == 3


def test_tables_of_the_end_show_the_counts(sound: dict[str, Any]) -> None:
    text = io.StringIO()
    show_results(Show(Console(file=text, width=120)), sound)
    assert re.search(r"events applied\W+90\b", text.getvalue())
    assert "gate: passed" in text.getvalue() and sound["summary"] in text.getvalue()
