"""The report: what the demo saw and what the platform counted, held against each other."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from infra.demo.ledger import Ledger, percentiles
from infra.demo.live import LiveResult
from infra.demo.recorded import Recorded
from infra.demo.show import Show
from infra.demo.training import FirstVersion
from protos.events.v1.outcome_pb2 import Outcome
from protos.events.v1.rejected_pb2 import Rejected

_TABLES: Final = {
    "events in, states written": (
        "events_sent",
        "events_kept",
        "events_applied",
        "duplicates_skipped",
        "events_rejected",
        "users",
    ),
    "slates served, outcomes joined": (
        "requests",
        "degraded_requests",
        "explored_requests",
        "illegal_items",
        "impressions_logged",
        "outcomes",
        "outcomes_joined",
    ),
}


def build_report(
    recorded: Recorded,
    first: FirstVersion,
    ledger: Ledger,
    result: LiveResult,
    outcomes: Sequence[Outcome],
    rejects: Sequence[Rejected],
    verdict_file: Path,
) -> dict[str, Any]:
    """Every number of report.json but the wall times, all measured in this run."""
    counts, state = ledger.counts, result.stored
    rejected_events = sum(one.index >= 0 for one in rejects)
    joined = [outcome for outcome in outcomes if outcome.actions]
    gate, reward = _gate(verdict_file)
    answered = [answer.took_ms for answer in ledger.answers]
    return {
        "scenario": recorded.title,
        "summary": _summary(result.versions, gate),
        "events_sent": counts["events_sent"],
        "events_kept": counts["kept"],
        "events_applied": state.applied,
        "events_rejected": counts["refused"] + rejected_events,
        "events_rejected_at_the_door": counts["refused"],
        "events_rejected_on_the_topic": rejected_events,
        "records_rejected_on_the_topic": len(rejects) - rejected_events,
        "poison_records_sent": counts["poison_records"],
        "events_straight_to_kafka": counts["direct_sent"],
        "refused_by_field": dict(ledger.refusals),
        "events_unanswered": counts["events_unanswered"],
        "repeats_sent": counts["repeats_sent"],
        "duplicates_skipped": state.duplicates,
        "users": state.users,
        "requests": counts["requests"],
        "preview_requests": counts["preview_requests"],
        "requests_not_made": counts["requests_not_made"],
        "failed_calls": dict(ledger.errors),
        "degraded_requests": sum(answer.degraded for answer in ledger.answers),
        "explored_requests": sum(answer.explored for answer in ledger.answers),
        "illegal_items": len(ledger.illegal),
        "impressions_logged": state.impressions,
        "outcomes": len(outcomes),
        "outcomes_joined": len(joined),
        "acts_without_outcome": state.let_go,
        "freshness_ms": percentiles([fresh.took_ms for fresh in ledger.fresh]),
        "freshness_samples": len(ledger.fresh),
        "freshness_timeouts": counts["freshness_timeouts"],
        "recommend_ms": percentiles(answered),
        "model_versions": list(result.versions),
        "learn_exit_code": result.learn_exit_code,
        "answers_by_version": {str(v): sum(a.model_version == v for a in ledger.answers) for v in result.versions},
        "gate": gate,
        "reward": reward | {"watched_share_live": _watched(ledger, result.versions)},
        "quality": {
            "recall_at_10": round(first.metrics["recall_at_10"], 4),
            "recall_at_10_popularity": round(first.metrics["recall_at_10_popularity"], 4),
            "difference_95": [round(first.metrics[f"recall_difference_{end}"], 4) for end in ("low", "high")],
            "test_exposures": int(first.metrics["test_exposures"]),
        },
        "values": {
            name: first.metrics[name]
            for name in (
                *(f"watched_{name}" for name in ("found", "predicted", "log_loss", "base_log_loss")),
                *("item_weight", "value_weight", "reward_gain_low", "reward_gain_high"),
                *(f"{figure}_by_{way}" for figure in ("reward", "recall_at_10") for way in ("beam", "item", "value")),
            )
        },
        "user_model": {
            name: round(first.metrics[f"user_model_{name}"], 4)
            for name in (
                *("exposures", "watch_log_loss", "watch_base_log_loss", "watched_predicted", "watched_found"),
                *("likes_predicted", "likes_found"),
            )
        },
        "traffic_s": round(result.traffic_s, 1),
    }


def disagreements(report: dict[str, Any]) -> list[str]:
    """What must hold and does not, one line each; empty when the accounts agree."""
    wrong = []
    expected = report["events_kept"] - report["duplicates_skipped"] - report["events_rejected_on_the_topic"]
    if report["events_applied"] != expected:
        wrong.append(
            f"events applied: found {report['events_applied']:,} in the store, expected {expected:,} "
            "(kept - duplicates - rejected on the topic); look at the logs of the stream workers"
        )
    if report["records_rejected_on_the_topic"] != report["poison_records_sent"]:
        wrong.append(
            f"unreadable records: found {report['records_rejected_on_the_topic']} in rejected.v1, expected the "
            f"{report['poison_records_sent']} that were sent; look at the logs of the stream workers"
        )
    if report["illegal_items"]:
        wrong.append(f"illegal items: found {report['illegal_items']}, expected 0; look at the scorer's log")
    if report["impressions_logged"] != report["requests"] and not report["failed_calls"]:
        wrong.append(
            f"impressions: found {report['impressions_logged']:,} in the log, expected {report['requests']:,}, "
            "one per answered request; look at the scorer's log"
        )
    if report["learn_exit_code"]:
        wrong.append(f"the policy update ended with {report['learn_exit_code']}, expected 0; look at the log of learn")
    newest = report["model_versions"][-1]
    if not report["answers_by_version"][str(newest)]:
        wrong.append(f"version {newest} is current, expected it in an answer, found none; look at the scorer's log")
    if report["gate"]["verdict"] == "none":
        wrong.append("the policy update gave no verdict; look at the log of learn")
    return wrong


def show_results(show: Show, report: dict[str, Any]) -> None:
    """The tables at the end."""
    for title, names in _TABLES.items():
        show.table(title, [{"what": name.replace("_", " "), "count": report[name]} for name in names])
    show.table(
        "latency, ms",
        [
            {"what": what, "p50": report[key]["p50"], "p99": report[key]["p99"], "samples": report[samples]}
            for what, key, samples in (
                ("Recommend, seen by the caller", "recommend_ms", "requests"),
                ("an act acknowledged -> in an answer", "freshness_ms", "freshness_samples"),
            )
        ],
    )
    quality, reward = report["quality"], report["reward"]
    show.table(
        f"recall@10 of the next good item, {quality['test_exposures']:,} exposures of the first live day",
        [
            {
                "version 1": quality["recall_at_10"],
                "popularity": quality["recall_at_10_popularity"],
                "difference, 95 %": "{:+.4f} .. {:+.4f}".format(*quality["difference_95"]),
            }
        ],
    )
    values = report["values"]
    show.table(
        "what a slate is chosen by; the reward is that of a slot under the user model, gains are over the beams alone",
        [
            {
                "chosen by": chosen_by,
                "reward": round(values[f"reward_by_{way}"], 4),
                "recall@10": round(values[f"recall_at_10_by_{way}"], 4),
                "gain of reward, 95 %": gain,
            }
            for way, chosen_by, gain in (
                ("beam", "the beams alone", ""),
                ("item", f"+ {values['item_weight']:g} x item head", ""),
                (
                    "value",
                    f"+ {values['value_weight']:g} x log of expected worth",
                    f"{values['reward_gain_low']:+.4f} .. {values['reward_gain_high']:+.4f}",
                ),
            )
        ],
    )
    users = report["user_model"]
    show.table(
        f"the user model that judges, on {users['exposures']:,.0f} unseen exposures of the first live day",
        [
            {
                "log loss of watch share, nats": f"{users['watch_log_loss']:.3f}",
                "of earlier rates by duration": f"{users['watch_base_log_loss']:.3f}",
                "watched over 30 %, expected": users["watched_predicted"],
                "found": users["watched_found"],
            }
        ],
    )
    show.table(f"gate: {report['gate']['verdict']}", [{"check": reason} for reason in report["gate"]["reasons"]])
    show.table(
        "expected reward of an item under the user model, held-out requests",
        [{"version 1": reward["v1"], "version 2": reward["v2"]}],
    )
    show.say(report["summary"])


def _gate(verdict_file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The gate's verdict and the rewards that it compared; verdict "none" when there is no file."""
    if not verdict_file.exists():
        return {"verdict": "none", "reasons": ["the update did not come to its gate"]}, {"v1": None, "v2": None}
    said = json.loads(verdict_file.read_text("utf-8"))
    reward = {"v1": said["serving_reward"], "v2": said["candidate_reward"], "difference": said["difference"]}
    return {"verdict": "passed" if said["version"] else "refused", "reasons": said["reasons"]}, reward


def _summary(versions: Sequence[int], gate: dict[str, Any]) -> str:
    if len(versions) > 1:
        return f"version {versions[-1]} passed the gate, was published and swapped in while requests kept coming"
    why = [reason for reason in gate["reasons"] if "REFUSED" in reason]
    return f"version 1 serves on; the update was not published: {'; '.join(why)}"


def _watched(ledger: Ledger, versions: Sequence[int]) -> dict[str, float | None]:
    """Mean watch share of a slot in the live slates, by version; not a comparison: other users, other hours."""
    found = {}
    for version in versions:
        shares = [reward.watched_share for reward in ledger.rewards if reward.model_version == version]
        found[f"v{version}"] = round(float(np.mean(shares)), 4) if shares else None
    return found
