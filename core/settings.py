"""Settings: environment over file over default, in one frozen tree.

A key is `section.name`. The environment spells it `NEARFEED_SECTION__NAME`; the file (TOML, named by
NEARFEED_SETTINGS or `nearfeed.toml` in the working directory) spells it `[section] name = ...`.
Unknown keys are refused in both, so a typing mistake never becomes a silent default. Secrets print
as `********`. Numbers that change an answer are not here: they stand beside the code they rule.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from core.clock import PlatformClock
from core.errors import SettingsError

PREFIX: Final = "NEARFEED_"
FILE_VARIABLE: Final = "NEARFEED_SETTINGS"
DATA_HOME_VARIABLE: Final = "NEARFEED_DATA_HOME"  # folder of public data sets; read by benchmarks and tests only
DEFAULT_FILE: Final = "nearfeed.toml"
MASK: Final = "********"


class Section(BaseModel):
    """A group of settings; frozen, and refusing what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Kafka(Section):
    """Where the log lives."""

    bootstrap_servers: str = Field(
        "127.0.0.1:9092", pattern=r"^[^\s,;]+:\d{1,5}(,[^\s,;]+:\d{1,5})*$", description="comma-separated host:port"
    )
    activity_partitions: int = Field(4, ge=1, description="fixed for activity.v1; more is a new topic version")
    replication: int = Field(1, ge=1, description="replication factor of topics made by `topics apply`")
    retention_days: int = Field(30, ge=0, description="of activity, outcomes and rejects, platform time; 0 = for ever")
    request_timeout_ms: int = Field(10_000, ge=100)


class Postgres(Section):
    """Where Feast's registry, the online store and the cursors live."""

    dsn: SecretStr = Field(SecretStr("postgresql://nearfeed@127.0.0.1:5432/nearfeed"), description="libpq URL")
    connect_timeout_s: int = Field(5, ge=1)
    statement_timeout_ms: int = Field(10_000, ge=10)


class ClockSettings(Section):
    """The platform's time; all processes of one platform share the three numbers."""

    anchor_wall_ms: int = 0
    anchor_platform_ms: int = 0
    speed: float = Field(1.0, gt=0, description="platform seconds per wall second")

    def clock(self) -> PlatformClock:
        """The clock these settings describe."""
        return PlatformClock(self.anchor_wall_ms, self.anchor_platform_ms, self.speed)


class Streams(Section):
    """The Faust workers."""

    group: str = Field("nearfeed-state", description="consumer group, and the processor's name in its cursors")
    max_batch: int = Field(200, ge=1, description="frames in one micro-batch")
    max_wait_ms: int = Field(20, ge=0, description="how long a micro-batch waits to fill")
    cache_users: int = Field(20_000, ge=0, description="users whose rows a partition's owner keeps, 4 KB each")
    horizon_s: int = Field(1800, ge=1, description="how long an impression waits for acts, event time")
    heartbeat_s: float = Field(1.0, gt=0, description="wall seconds between heartbeats on an idle partition")
    location_resolution: int = Field(9, ge=0, le=15, description="finest H3 resolution that states keep")


class Archive(Section):
    """The log on disk, beyond the topic's retention."""

    home: Path = Field(Path("var/archive"), description="folder of the archive")
    segment_records: int = Field(50_000, ge=1, description="a segment is written when it holds so many records")
    segment_bytes: int = Field(64 << 20, ge=1024, description="or so many bytes")
    segment_s: float = Field(300.0, gt=0, description="or when its first record has waited so long, wall seconds")


# Servers listen below Linux's range for outgoing connections (32768-60999): in it, another program's connection can
# hold the port when a server starts.


class Scorer(Section):
    """RecommendService."""

    address: str = Field("127.0.0.1:7052", description="host:port; port 0 = any free one")
    default_deadline_ms: int = Field(200, ge=10, description="when the call names none")
    reserve_ms: int = Field(20, ge=0, description="kept back for answering; fallback starts before it is spent")
    max_queue: int = Field(64, ge=1, description="requests in work or waiting; beyond it a call is refused")
    max_batch_size: int = Field(8, ge=1, description="requests in one run of the generator")
    max_wait_ms: float = Field(2.0, ge=0, description="how long a batch waits to fill")
    threads: int = Field(1, ge=1, description="ONNX Runtime threads inside an operator")
    exploration_share: float = Field(0.05, ge=0, le=1, description="share of requests whose slate is drawn")
    item_weight: float = Field(
        1.5, ge=0, description="how much the item head's logit counts beside the path's score, where a model has one"
    )
    value_weight: float = Field(
        1.0, ge=0, description="how much predicted watches, likes and orders count beside the path's score"
    )
    lease_s: float = Field(5.0, gt=0, description="how long a scorer may answer without renewing its catalogue lease")
    service_radius_km: float = Field(30.0, gt=0, description="a place farther from the user is not recommended")


class Ingest(Section):
    """IngestService and CatalogService."""

    address: str = Field("127.0.0.1:7051", description="host:port; port 0 = any free one")
    max_events: int = Field(1000, ge=1, description="events in one call")
    max_request_bytes: int = Field(1 << 20, ge=1024)
    linger_ms: int = Field(5, ge=0, description="how long a frame waits for more events")
    ack_timeout_ms: int = Field(5_000, ge=10)


class Registry(Section):
    """Published models."""

    home: Path = Field(Path("var/registry"), description="folder of versions")
    poll_ms: int = Field(500, ge=10, description="how often a scorer looks for a newer version")


class Telemetry(Section):
    """What a process shows of itself."""

    metrics_port: int = Field(0, ge=0, le=65535, description="Prometheus endpoint; 0 = any free port, logged at start")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")


class Settings(Section):
    """Everything that changes with the machine."""

    kafka: Kafka = Kafka()
    postgres: Postgres = Postgres()
    clock: ClockSettings = ClockSettings()
    streams: Streams = Streams()
    scorer: Scorer = Scorer()
    ingest: Ingest = Ingest()
    archive: Archive = Archive()
    registry: Registry = Registry()
    telemetry: Telemetry = Telemetry()


class Value(NamedTuple):
    """One setting as a person sees it."""

    key: str
    value: str  # secrets masked
    source: str  # "default", the file's path, or the environment variable's name
    help: str


def load(environment: Mapping[str, str] | None = None, file: Path | None = None) -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: a key is unknown or a value malformed; the message names key, value and source.
    """
    return _merge(environment, file)[0]


def explain(environment: Mapping[str, str] | None = None, file: Path | None = None) -> list[Value]:
    """Every setting with its value and where it came from, in the order of the tree."""
    settings, sources = _merge(environment, file)
    shown = []
    for section, name, value in _walk(settings):
        key = f"{section}.{name}"
        help_text = type(getattr(settings, section)).model_fields[name].description or ""
        text = MASK if isinstance(value, SecretStr) else str(value)
        shown.append(Value(key, text, sources.get(key, "default"), help_text))
    return shown


def as_environment(settings: Settings) -> dict[str, str]:
    """The variables that give a child process exactly these settings. Holds secrets in the clear."""
    return {
        f"{PREFIX}{section}__{name}".upper(): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for section, name, value in _walk(settings)
    }


def _walk(settings: Settings) -> Iterator[tuple[str, str, Any]]:
    for section in Settings.model_fields:
        part = getattr(settings, section)
        for name in type(part).model_fields:
            yield section, name, getattr(part, name)


def _merge(environment: Mapping[str, str] | None, file: Path | None) -> tuple[Settings, dict[str, str]]:
    environment = os.environ if environment is None else environment
    tree: dict[str, dict[str, Any]] = {}
    sources: dict[str, str] = {}
    for key, value, source in (*_from_file(environment, file), *_from_environment(environment)):
        section, name = key
        known = Settings.model_fields.get(section)
        if known is None or name not in getattr(known.annotation, "model_fields", {}):
            raise SettingsError(f"{source}: unknown setting {section}.{name}; `nearfeed settings show` lists all")
        tree.setdefault(section, {})[name] = value
        sources[f"{section}.{name}"] = source
    try:
        return Settings.model_validate(tree), sources
    except ValidationError as error:
        first = error.errors()[0]
        section, name = str(first["loc"][0]), str(first["loc"][1])
        found = MASK if _is_secret(section, name) else repr(first["input"])
        key_text = f"{section}.{name}"
        raise SettingsError(f"{sources[key_text]}: {key_text} found {found}, expected: {first['msg']}") from None


def _is_secret(section: str, name: str) -> bool:
    return isinstance(getattr(getattr(Settings(), section), name), SecretStr)


def _from_file(environment: Mapping[str, str], file: Path | None) -> Iterator[tuple[tuple[str, str], Any, str]]:
    named = file or (Path(environment[FILE_VARIABLE]) if FILE_VARIABLE in environment else None)
    path = named or Path(DEFAULT_FILE)
    if named is None and not path.exists():
        return
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); unset {FILE_VARIABLE} or fix it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not TOML ({error})") from None
    for section, values in tree.items():
        if not isinstance(values, dict):
            raise SettingsError(f"{path}: found {section!r} outside a section, expected [section] then name = value")
        for name, value in values.items():
            yield (section, name), value, str(path)


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[tuple[str, str], Any, str]]:
    for variable in sorted(environment):
        if variable.startswith(PREFIX) and variable not in (FILE_VARIABLE, DATA_HOME_VARIABLE):
            section, separator, name = variable[len(PREFIX) :].lower().partition("__")
            if not separator:
                raise SettingsError(f"{variable}: expected {PREFIX}SECTION__NAME; `nearfeed settings show` lists all")
            yield (section, name), environment[variable], variable
