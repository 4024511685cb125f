"""The schemas keep their own rules: paths, names, numbers, and generated code that is current."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor

from core.topics import topics
from feature_repo.layouts import HISTORY_ROW
from protos.events.v1.interaction_pb2 import Action

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path.relative_to(ROOT) for path in ROOT.glob("protos/**/*.proto"))
TIMES = "google.protobuf.Timestamp"


def descriptor(source: Path) -> FileDescriptor:
    module = importlib.import_module(".".join(source.with_suffix("").parts) + "_pb2")
    found: FileDescriptor = module.DESCRIPTOR
    return found


def messages(within: FileDescriptor | Descriptor) -> Iterator[Descriptor]:
    top = within.message_types_by_name if isinstance(within, FileDescriptor) else within.nested_types_by_name
    for message in top.values():
        if not message.GetOptions().map_entry:
            yield message
            yield from messages(message)


def enums(file: FileDescriptor) -> list[EnumDescriptor]:
    return [*file.enum_types_by_name.values(), *(e for m in messages(file) for e in m.enum_types)]


def every_field() -> list[FieldDescriptor]:
    return [field for source in SOURCES for message in messages(descriptor(source)) for field in message.fields]


def test_generated_code_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.protos", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_package_is_the_path_and_carries_the_version(source: Path) -> None:
    assert descriptor(source).package == ".".join(source.parent.parts)
    assert re.fullmatch(r"v\d+", source.parent.name)
    assert re.fullmatch(r"[a-z_]+\.proto", source.name)


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_enum_values_carry_the_enums_name_and_zero_is_unspecified(source: Path) -> None:
    for enum in enums(descriptor(source)):
        prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper()
        assert enum.values_by_number[0].name == f"{prefix}_UNSPECIFIED"
        assert all(value.name.startswith(f"{prefix}_") for value in enum.values)


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_services_end_in_service_and_calls_have_their_own_messages(source: Path) -> None:
    for service in descriptor(source).services_by_name.values():
        assert service.name.endswith("Service")
        for call in service.methods:
            assert (call.input_type.name, call.output_type.name) == (f"{call.name}Request", f"{call.name}Response")


def test_time_fields_are_timestamps_and_timestamps_end_in_at() -> None:
    for field in every_field():
        is_time = field.message_type is not None and field.message_type.full_name == TIMES
        assert is_time == field.name.endswith("_at"), field.full_name


def test_numbers_name_their_unit() -> None:
    """A plain name such as `age`, `delay` or `distance` would leave the unit to guessing."""
    needs_unit = re.compile(r"(^|_)(age|time|delay|duration|distance|size|price|value|horizon|radius)$")
    textual = (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    bare = {field.full_name for field in every_field() if field.type not in textual and needs_unit.search(field.name)}
    assert bare == {
        "protos.registry.v1.GateCheck.value",  # in the unit of its check
        "protos.registry.v1.ModelManifest.codebook_size",  # a count
        "protos.scoring.v1.RecommendRequest.slate_size",  # a count
    }


def test_every_topic_carries_a_message_that_exists() -> None:
    names = {message.full_name for source in SOURCES for message in messages(descriptor(source))}
    assert {topic.message for topic in topics(4, -1)} <= names


def test_readme_lists_every_file_topic_and_service() -> None:
    text = (ROOT / "protos" / "README.md").read_text("utf-8")
    services = {service for source in SOURCES for service in descriptor(source).services_by_name}
    wanted = {str(source.relative_to("protos")) for source in SOURCES}
    wanted |= services | {topic.name for topic in topics(4, -1)}
    assert {name for name in wanted if name not in text} == set()


# Numbers that stand in logs for ever: a field may be added, never renumbered.
PUBLISHED = {
    "Interaction": "event_id=1 user_id=2 item_id=3 action=4 occurred_at=5 play_ms=6 duration_ms=7 value_micros=8 "
    "currency=9 location=10 request_id=11 surface=12 session_id=13 origin=14",
    "Impression": "request_id=1 user_id=2 served_at=3 surface=4 session_id=5 location=6 model_version=7 "
    "tokenizer_version=8 catalog_digest=9 catalog_offset=10 policy_version=11 feature_service=12 "
    "numeric_precision=13 execution_provider=14 feature_ages=15 feature_cursor=16 candidates=17 removals=18 "
    "slots=19 exploration=20 degraded_reasons=21 origin=22",
    "Outcome": "outcome_id=1 request_id=2 user_id=3 item_id=4 position=5 served_at=6 closed_at=7 surface=8 source=9 "
    "actions=10 play_ms=11 duration_ms=12 value_micros=13 currency=14 distance_m=15 disliked=16 duration_bucket=17 "
    "rank=18 peers=19 ties=20 model_version=21 tokenizer_version=22 policy_version=23 codes=24 masked_log_probs=25 "
    "explored=26 slate_log_prob=27 partition=28 offset=29 features=30 origin=31",
    "ActivityFrame": "schema_version=1 activities=2",
    "Rejected": "topic=1 partition=2 offset=3 index=4 recorded_at=5 field=6 reason=7 payload=8",
}


ACTIONS = "VIEW=1 PLAY=2 CLICK=3 LIKE=4 SHARE=5 COMMENT=6 FOLLOW=7 ADD_TO_CART=8 ORDER=9 CHECK_IN=10 DISLIKE=11"


@pytest.mark.parametrize(("name", "fields"), PUBLISHED.items(), ids=PUBLISHED.keys())
def test_published_numbers_keep_their_names(name: str, fields: str) -> None:
    found = {
        message.name: {f"{field.name}={field.number}" for field in message.fields}
        for source in SOURCES
        for message in messages(descriptor(source))
    }
    assert set(fields.split()) <= found[name]


def test_actions_keep_their_bits() -> None:
    """Stored histories hold bit (Action - 1): another number would turn old likes into something else."""
    found = {f"{name.removeprefix('ACTION_')}={number}" for name, number in Action.items()}
    assert set(ACTIONS.split()) <= found
    assert max(Action.values()) <= 8 * HISTORY_ROW["actions"].base.itemsize
