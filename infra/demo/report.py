"""The demo's report: `report.json` for machines, `report.html` for people, both from one dictionary.

The page is one file with its plots inside, so that it can be sent to somebody.
"""

import html
import io
import json
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from infra.demo.ledger import Ledger

_COLOURS: Final = {1: "#3b6ea5", 2: "#d1793b"}
_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.6rem 0 1.4rem}
td,th{border-bottom:1px solid #ddd;padding:.25rem .8rem;text-align:left}
td:last-child{font-variant-numeric:tabular-nums}h2{margin-top:2.2rem}figure{margin:0 0 1.5rem}figcaption{color:#555}
pre{background:#f6f6f6;padding:.8rem;overflow:auto}
"""


def write_report(home: Path, report: dict[str, Any], ledger: Ledger, started_s: float) -> tuple[Path, Path]:
    """`report.json` and `report.html` stand in `home`; returns their paths."""
    home.mkdir(parents=True, exist_ok=True)
    as_json = home / "report.json"
    as_json.write_text(json.dumps(report, indent=2, sort_keys=False) + "\n", "utf-8")
    page = home / "report.html"
    page.write_text(_page(report, ledger, started_s), "utf-8")
    return as_json, page


def _page(report: dict[str, Any], ledger: Ledger, started_s: float) -> str:
    figures = [
        ("Latency of Recommend, seen by the caller, by model version", _latency(ledger, started_s)),
        ("Freshness: from the broker's acknowledgement of an act to the first answer that includes it", _fresh(ledger)),
        ("Reward of held-out requests under the user model, before and after the update", _rewards(report)),
    ]
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        f"<title>Nearfeed: {html.escape(report['scenario'])}</title><style>{_STYLE}</style>",
        f"<h1>Nearfeed: {html.escape(report['scenario'])}</h1><p>{html.escape(report['summary'])}</p>",
    ]
    for caption, figure in figures:
        parts.append(f"<figure>{_svg(figure)}<figcaption>{html.escape(caption)}</figcaption></figure>")
    for title, rows in _sections(report).items():
        cells = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in rows)
        parts.append(f"<h2>{html.escape(title)}</h2><table>{cells}</table>")
    parts.append(f"<h2>report.json</h2><pre>{html.escape(json.dumps(report, indent=2))}</pre></html>\n")
    return "\n".join(parts)


def _sections(report: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """The report's flat parts, one table each; whatever is not a mapping stands under Counts."""
    sections: dict[str, list[tuple[str, str]]] = {"Counts": []}
    for key, value in report.items():
        if isinstance(value, dict):
            sections[key] = [(str(k), _text(v)) for k, v in value.items()]
        elif key not in {"scenario", "summary"}:
            sections["Counts"].append((key, _text(value)))
    return sections


def _text(value: Any) -> str:
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _latency(ledger: Ledger, started_s: float) -> Figure:
    figure, axes = plt.subplots(figsize=(9, 3))
    for version in sorted({answer.model_version for answer in ledger.answers}):
        seen = [answer for answer in ledger.answers if answer.model_version == version]
        axes.plot(
            [answer.at_s - started_s for answer in seen],
            [answer.took_ms for answer in seen],
            ".",
            markersize=3,
            color=_COLOURS.get(version, "#888"),
            label=f"version {version}" if version else "fallback",
        )
    axes.set(xlabel="seconds since the start", ylabel="ms", yscale="log")
    if ledger.answers:
        axes.legend()
    return figure


def _fresh(ledger: Ledger) -> Figure:
    figure, axes = plt.subplots(figsize=(9, 3))
    axes.hist([fresh.took_ms for fresh in ledger.fresh], bins=40, color="#4f8a5b")
    axes.set(xlabel="ms", ylabel="acts")
    return figure


def _rewards(report: dict[str, Any]) -> Figure:
    figure, axes = plt.subplots(figsize=(4.5, 3))
    reward = report["reward"]
    values = [reward["v1"] or 0.0, reward["v2"] or 0.0]
    second = "version 2" if report["gate"]["verdict"] == "passed" else "refused candidate"
    axes.bar(["version 1", second], values, color=[_COLOURS[1], _COLOURS[2]])
    if reward.get("difference"):
        _, low, high = reward["difference"]
        difference = values[1] - values[0]
        spread = [[max(0.0, difference - low)], [max(0.0, high - difference)]]
        axes.errorbar([1], [values[1]], yerr=spread, color="#222", capsize=4)
    axes.set(ylabel="mean reward of an item")
    return figure


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.tight_layout()
    figure.savefig(text, format="svg")
    plt.close(figure)
    return text.getvalue().partition("<svg")[1] + text.getvalue().partition("<svg")[2]
