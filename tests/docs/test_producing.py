"""What docs/producing.md promises to producers is what readers do."""

import ast
import re
from pathlib import Path

import pytest
from kafka.partitioner.default import murmur2

from core import validation
from core.frames import MAX_FRAME_ACTIVITIES, MAX_FRAME_BYTES
from core.partition import partition_of
from core.producer import MAX_UNSETTLED_BYTES
from core.settings import Streams
from feature_repo.folds.attribution import EARLY_ACT_MS
from feature_repo.folds.entries import LATE_MS
from feature_repo.layouts import SEEN_EVENTS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "producing.md").read_text("utf-8")
VECTORS = re.findall(r"^\| `(.+)` \| (-?\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
MINUTE_MS, HOUR_MS = 60_000, 3_600_000


@pytest.mark.parametrize(("user_id", "signed", "of_4", "of_12"), VECTORS)
def test_its_vectors_are_kafkas_hash_and_our_partitions(user_id: str, signed: str, of_4: str, of_12: str) -> None:
    assert murmur2(user_id.encode()) == int(signed) % 2**32
    assert (partition_of(user_id, 4), partition_of(user_id, 12)) == (int(of_4), int(of_12))


def test_its_examples_are_python() -> None:
    assert len(VECTORS) >= 5 and len(EXAMPLES) == 2
    for example in EXAMPLES:
        ast.parse(example)


@pytest.mark.parametrize(
    ("words", "number", "unit"),
    [
        ("at most (\\d+) entries", MAX_FRAME_ACTIVITIES, 1),
        ("entries and (\\d+) MiB", MAX_FRAME_BYTES, 1 << 20),
        ("at most (\\d+) bytes of UTF-8", validation.MAX_ID_BYTES, 1),
        ("More than (\\d+) minutes ahead", validation.MAX_AHEAD_MS, MINUTE_MS),
        ("0 to (\\d+) hours", validation.MAX_PLAY_MS, HOUR_MS),
        ("0 to 10\\^(\\d+), with", len(str(validation.MAX_VALUE_MICROS)) - 1, 1),
        ("at most (\\d+); each names", validation.MAX_SLOTS, 1),
        ("last (\\d+) activities", SEEN_EVENTS, 1),
        ("Later than (\\d+) hours", LATE_MS, HOUR_MS),
        ("up to (\\d+) minutes before the answer", EARLY_ACT_MS, MINUTE_MS),
        ("`streams.horizon_s`, (\\d+) minutes", Streams().horizon_s * 1000, MINUTE_MS),
        ("H3, (\\d+) unless", Streams().location_resolution, 1),
        ("When (\\d+) MiB wait", MAX_UNSETTLED_BYTES, 1 << 20),
    ],
)
def test_its_numbers_are_those_of_the_code(words: str, number: int, unit: int) -> None:
    found = re.findall(words, PAGE)
    assert [int(one) * unit for one in found] == [number]
