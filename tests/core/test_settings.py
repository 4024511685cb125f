"""Settings: environment over file over default, nothing unknown, no secret shown."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.errors import SettingsError
from core.settings import MASK, Settings, as_environment, explain, load

DSN = "postgresql://feed:hunter2@db.example:5433/feed"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nearfeed.toml where the tests are started must not leak into them."""
    monkeypatch.chdir(tmp_path)


def write(text: str, path: Path = Path("nearfeed.toml")) -> Path:
    path.write_text(text)
    return path


def shown(environment: dict[str, str]) -> dict[str, tuple[str, str]]:
    return {value.key: (value.value, value.source) for value in explain(environment)}


def test_environment_beats_file_beats_default() -> None:
    write("[streams]\nmax_batch = 7\nmax_wait_ms = 9\n")
    settings = load({"NEARFEED_STREAMS__MAX_BATCH": "8"})
    assert settings.streams.max_batch == 8
    assert settings.streams.max_wait_ms == 9
    assert settings.streams.group == Settings().streams.group


def test_explain_says_where_each_value_came_from() -> None:
    write("[streams]\nmax_batch = 7\nmax_wait_ms = 9\n")
    found = shown({"NEARFEED_STREAMS__MAX_BATCH": "8"})
    assert found["streams.max_batch"] == ("8", "NEARFEED_STREAMS__MAX_BATCH")
    assert found["streams.max_wait_ms"] == ("9", "nearfeed.toml")
    assert found["streams.group"] == ("nearfeed-state", "default")


def test_file_named_by_the_environment_replaces_the_default_file() -> None:
    write("[streams]\nmax_batch = 7\n")
    other = write("[streams]\nmax_wait_ms = 9\n", Path("other.toml"))
    settings = load({"NEARFEED_SETTINGS": str(other)})
    assert (settings.streams.max_batch, settings.streams.max_wait_ms) == (Settings().streams.max_batch, 9)


def test_file_given_by_the_caller_beats_the_one_named_by_the_environment() -> None:
    mine, other = write("[streams]\nmax_batch = 1\n", Path("mine.toml")), write("nonsense", Path("other.toml"))
    assert load({"NEARFEED_SETTINGS": str(other)}, mine).streams.max_batch == 1


@pytest.mark.parametrize(
    "variable", ["NEARFEED_STREAMS__MAX_BACTH", "NEARFEED_STREAM__MAX_BATCH", "NEARFEED_STREAMS_MAX_BATCH", "NEARFEED_"]
)
def test_unknown_variable_is_refused_by_name(variable: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{variable}: .*nearfeed settings show"):
        load({variable: "1"})


def test_variable_without_its_two_underscores_is_told_the_form() -> None:
    with pytest.raises(SettingsError, match=r"^NEARFEED_STREAMS_MAX_BATCH: expected NEARFEED_SECTION__NAME"):
        load({"NEARFEED_STREAMS_MAX_BATCH": "1"})


def test_variables_of_other_programs_are_none_of_our_business() -> None:
    assert load({"KAFKA_BOOTSTRAP_SERVERS": "elsewhere:1", "NEARFEEDER__X": "1"}) == Settings()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[streams]\nmax_bacth = 1\n", "streams.max_bacth"),
        ("[stream]\nmax_batch = 1\n", "stream.max_batch"),
        ("max_batch = 1\n", "max_batch"),
        ("[streams.max]\nbatch = 1\n", "streams.max"),
    ],
)
def test_unknown_key_in_the_file_is_refused_with_the_file(text: str, named: str) -> None:
    write(text)
    with pytest.raises(SettingsError, match=rf"nearfeed\.toml.*{named}"):
        load({})


@pytest.mark.parametrize("content", [b"[streams\n", b'[streams]\ngroup = "\xff"\n'])
def test_file_that_is_not_toml_is_one_clear_line(content: bytes) -> None:
    Path("nearfeed.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"^nearfeed\.toml: is not TOML"):
        load({})


def test_file_that_was_named_must_exist() -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read"):
        load({"NEARFEED_SETTINGS": "absent.toml"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("streams.max_batch", "many"),
        ("streams.max_batch", "0"),
        ("kafka.bootstrap_servers", "broker"),
        ("kafka.bootstrap_servers", "broker:9092;other:9092"),
        ("clock.speed", "0"),
        ("clock.speed", "inf"),
        ("scorer.exploration_share", "nan"),
        ("telemetry.log_level", "LOUD"),
        ("telemetry.metrics_port", "65536"),
    ],
)
def test_malformed_value_names_key_value_and_source(key: str, value: str) -> None:
    variable = "NEARFEED_" + key.replace(".", "__").upper()
    with pytest.raises(SettingsError) as caught:
        load({variable: value})
    message = str(caught.value)
    assert message.startswith(f"{variable}: {key} found {value!r}, expected: ")


def test_several_brokers_and_ipv6_are_well_formed() -> None:
    brokers = "one.example:9092,[::1]:19092"
    assert load({"NEARFEED_KAFKA__BOOTSTRAP_SERVERS": brokers}).kafka.bootstrap_servers == brokers


def test_malformed_value_in_the_file_names_the_file() -> None:
    write("[streams]\nmax_batch = true\nmax_wait_ms = 'soon'\n")
    with pytest.raises(SettingsError, match=r"^nearfeed\.toml: streams\.max_wait_ms found 'soon', expected: "):
        load({})


def test_secrets_are_masked_wherever_a_person_looks() -> None:
    environment = {"NEARFEED_POSTGRES__DSN": DSN}
    settings = load(environment)
    assert shown(environment)["postgres.dsn"] == (MASK, "NEARFEED_POSTGRES__DSN")
    assert "hunter2" not in repr(settings) + str(settings) + repr(settings.postgres)
    assert settings.postgres.dsn.get_secret_value() == DSN


def test_malformed_secret_is_not_told() -> None:
    write('[postgres]\ndsn = ["hunter2"]\n')
    with pytest.raises(SettingsError) as caught:
        load({})
    assert "hunter2" not in str(caught.value)
    assert "postgres.dsn" in str(caught.value)


def test_child_process_gets_exactly_these_settings() -> None:
    write("[registry]\nhome = 'models here'\n")
    settings = load({"NEARFEED_POSTGRES__DSN": DSN, "NEARFEED_CLOCK__SPEED": "0.1", "NEARFEED_INGEST__LINGER_MS": "0"})
    write("[streams]\nmax_batch = 99\n")  # what the child's own folder says does not matter
    assert load(as_environment(settings)) == settings


@given(st.floats(min_value=1e-9, max_value=1e9), st.integers(-(2**53), 2**53))
def test_numbers_survive_the_environment(speed: float, anchor_ms: int) -> None:
    settings = load({"NEARFEED_CLOCK__SPEED": repr(speed), "NEARFEED_CLOCK__ANCHOR_WALL_MS": str(anchor_ms)})
    assert (settings.clock.speed, settings.clock.anchor_wall_ms) == (speed, anchor_ms)
    assert load(as_environment(settings)) == settings


def test_every_setting_is_listed_once_and_has_a_variable() -> None:
    keys = [value.key for value in explain({})]
    assert len(keys) == len(set(keys))
    variables = {f"NEARFEED_{key.replace('.', '__').upper()}" for key in keys}
    assert variables == set(as_environment(Settings()))


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load({}).kafka.replication = 3  # type: ignore[misc]
