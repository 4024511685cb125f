"""Laws of what the demo does on purpose, and of the people it shows slates to."""

import io
import time
from collections.abc import Sequence

import numpy as np
import pytest
from kafka.future import Future as KafkaFuture
from rich.console import Console

from core.clock import FixedClock
from core.errors import NotReady
from core.topics import ACTIVITY
from core.validation import interaction_fault
from feature_repo.store import MemoryStore
from infra.demo.incidents import Legality, bad_input, change_catalog
from infra.demo.ledger import Ledger
from infra.demo.people import People, Shown
from infra.demo.show import Show
from models.catalog import Catalog
from protos.catalog.v1.catalog_pb2 import CatalogChange, ChangeResult, UpdateCatalogResponse
from protos.events.v1.interaction_pb2 import ORIGIN_SIMULATED, Interaction, Location
from protos.ingest.v1.ingest_pb2 import EventResult, IngestResponse
from rl.user_model import ACTS, WATCH_BINS, Floats, Ints, Predicted, Viewers
from tests.models.shelves import shop

NOW_MS = 1_650_000_000_000


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return shop().catalog


def test_an_item_may_be_shown_until_every_scorer_knows_that_it_is_gone() -> None:
    legality = Legality({"7", "8"})
    assert legality("7", 10.0) and not legality("9", 10.0)
    legality.removed_at_s["7"] = 20.0
    assert legality("7", 19.9)
    assert not legality("7", 20.0) and not legality("7", 30.0)
    assert legality("8", 30.0)


class Catalogues:
    """CatalogService."""

    def __init__(self, *, kept: bool = True, applied: bool = True) -> None:
        self.kept, self.applied = kept, applied
        self.changes: list[CatalogChange] = []

    async def update_catalog(self, changes: Sequence[CatalogChange]) -> UpdateCatalogResponse:
        self.changes += changes
        results = [ChangeResult(kept=self.kept, reason="" if self.kept else "found no title") for _ in changes]
        return UpdateCatalogResponse(results=results, applied_by_all_scorers=self.applied)


async def test_a_catalogue_change_is_law_for_later_requests_only(catalog: Catalog) -> None:
    legality, service = Legality({item.item_id for item in catalog.items}), Catalogues()
    shown = catalog.items[4].item_id
    before_s = time.monotonic()
    await change_catalog(service, catalog, legality, _silent(), shown)  # type: ignore[arg-type]
    after_s = time.monotonic()
    kinds = [change.WhichOneof("kind") for change in service.changes]
    assert sorted(str(kind) for kind in kinds) == ["availability", "remove", "upsert"]
    assert shown in legality.removed_at_s and len(legality.removed_at_s) == 2
    for gone in legality.removed_at_s:
        assert legality(gone, before_s) and not legality(gone, after_s)
    (added,) = legality.known - {item.item_id for item in catalog.items}
    assert legality(added, after_s)


@pytest.mark.parametrize(
    ("service", "said"), [(Catalogues(kept=False), "found no title"), (Catalogues(applied=False), "refused: nothing")]
)
async def test_a_catalogue_that_does_not_follow_ends_the_demo(catalog: Catalog, service: Catalogues, said: str) -> None:
    legality = Legality({item.item_id for item in catalog.items})
    with pytest.raises(NotReady, match=said):
        await change_catalog(service, catalog, legality, _silent(), catalog.items[4].item_id)  # type: ignore[arg-type]
    assert legality.removed_at_s == {}


class Rules:
    """Traffic whose door knows the rules of the platform, or lets everything in."""

    def __init__(self, *, strict: bool = True) -> None:
        self.strict = strict
        self.fields: list[str] = []
        self.direct: list[Interaction] = []

    async def send(self, events: Sequence[Interaction]) -> IngestResponse:
        faults = [interaction_fault(event, NOW_MS) if self.strict else None for event in events]
        self.fields = [fault.field for fault in faults if fault]
        return IngestResponse(
            results=[EventResult(kept=fault is None, field=fault.field if fault else "") for fault in faults]
        )

    async def send_direct(self, event: Interaction) -> None:
        self.direct.append(event)


class Producer:
    """A Kafka producer that acknowledges at once."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    def send(self, topic: str, *, value: bytes, **given: object) -> KafkaFuture:
        class Place:
            partition, offset = 0, 17

        self.sent.append((topic, value))
        return KafkaFuture().success(Place())


async def test_each_bad_event_is_bad_in_a_field_of_its_own_and_poison_goes_past_the_door(catalog: Catalog) -> None:
    traffic, producer, ledger = Rules(), Producer(), Ledger()
    await bad_input(FixedClock(NOW_MS), catalog, traffic, producer, ledger, "user-1")  # type: ignore[arg-type]
    assert traffic.fields == ["action", "user_id", "item_id", "occurred_at", "play_ms", "location.latitude"]
    assert producer.sent == [(ACTIVITY, b"not a frame")] and ledger.counts == {"poison_records": 1}
    (negative,) = traffic.direct
    fault = interaction_fault(negative, NOW_MS)
    assert fault is not None and fault.field == "play_ms"


async def test_a_door_that_lets_bad_events_in_ends_the_demo(catalog: Catalog) -> None:
    lax = Rules(strict=False)
    with pytest.raises(NotReady, match="bad events were not told from good ones"):
        await bad_input(FixedClock(NOW_MS), catalog, lax, Producer(), Ledger(), "user-1")  # type: ignore[arg-type]


class Devoted:
    """A user model in which everything is watched to between 60 and 90 % and nothing else is done."""

    def __init__(self) -> None:
        self.asked: list[tuple[Viewers, Ints]] = []

    def predict(self, viewers: Viewers, who: np.ndarray, items: Ints) -> Predicted:  # type: ignore[type-arg]
        self.asked.append((viewers, items))
        watch = np.zeros((len(items), WATCH_BINS))
        watch[:, 5] = 1.0
        return Predicted(watch, np.zeros((len(items), len(ACTS))))

    def durations_s(self, items: Ints) -> Floats:
        return np.full(items.shape, 10.0)


def _slate(*item_ids: str, where: Location | None = None) -> Shown:
    return Shown("request-1", "user-2", item_ids, NOW_MS, where)


def test_people_play_what_they_know_and_ignore_the_unknown(catalog: Catalog) -> None:
    people = People(Devoted(), catalog, ["user-1", "user-2"], MemoryStore())
    known = [catalog.items[3].item_id, catalog.items[9].item_id]
    acts = people.acts(_slate(known[0], "demo-new-item", known[1]), np.random.default_rng(0))
    assert [one.item_id for one in acts] == known
    assert {(one.user_id, one.request_id, one.origin) for one in acts} == {("user-2", "request-1", ORIGIN_SIMULATED)}
    times = [one.occurred_at.ToMilliseconds() for one in acts]
    assert times == sorted(times) and times[0] > NOW_MS
    assert all(0.6 <= one.play_ms / one.duration_ms <= 0.9 for one in acts)
    assert people.acts(_slate("demo-new-item"), np.random.default_rng(0)) == []


def test_people_never_use_an_event_id_twice_and_act_where_they_are(catalog: Catalog) -> None:
    model = Devoted()
    people = People(model, catalog, ["user-1", "user-2"], MemoryStore())
    here = Location(latitude=51.5, longitude=0.1)
    shown = catalog.items[3].item_id
    acts = [one for _ in range(3) for one in people.acts(_slate(shown, where=here), np.random.default_rng(0))]
    assert len({one.event_id for one in acts}) == len(acts) == 3
    assert all(one.location == here for one in acts)
    viewers, _ = model.asked[0]
    assert viewers.user_ids == ["user-2"] and len(viewers.rows.found) == 1
    assert viewers.locations.tolist() == [[51.5, 0.1]]
    people.acts(_slate(shown), np.random.default_rng(0))
    assert np.isnan(model.asked[-1][0].locations).all()


def _silent() -> Show:
    return Show(Console(file=io.StringIO()))
