"""What the documents point to exists, and every decision has the same five parts."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("core", "data", "docs", "feature_repo", "grpc_api", "infra", "models", "protos", "rl", "streams")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.md"))])
DECISIONS = sorted((ROOT / "docs" / "adr").glob("*.md"))
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    links = LINK.findall(document.read_text("utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_decision_that_the_code_names_is_written() -> None:
    written = {path.name[:4] for path in DECISIONS}
    sources = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    named = {number for path in sources for number in re.findall(r"docs/adr/(\d{4})", path.read_text("utf-8"))}
    assert named <= written
    assert named, "the code names its decisions"


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)
def test_decision_has_its_five_parts_on_a_page(decision: Path) -> None:
    lines = decision.read_text("utf-8").splitlines()
    assert lines[0].startswith(f"# {decision.name[:4]}: ")
    assert lines[2].startswith("**Status:** ")
    parts = ["Context", "Decision", "Refused", "Consequences"]
    assert [line[3:] for line in lines if line.startswith("## ")] == parts
    assert len(lines) <= 60
