"""What the demo does on purpose in the middle of the traffic: a closer look, bad input, catalogue changes."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final

from kafka import KafkaProducer

from core.clock import PlatformClock
from core.errors import NotReady
from core.geo import distance_m
from core.producer import send_record
from core.settings import Settings
from core.topics import ACTIVITY
from feature_repo.inspect import inspect_user
from grpc_api.client import Client
from infra.demo.ledger import Ledger
from infra.demo.recorded import Recorded
from infra.demo.show import Show
from infra.demo.traffic import Traffic
from models.catalog import Catalog
from protos.catalog.v1.catalog_pb2 import CatalogChange, Item
from protos.events.v1.interaction_pb2 import ORIGIN_SIMULATED, Action, Interaction, Location
from protos.scoring.v1.recommend_pb2 import RecommendedItem, RecommendResponse

SEEN_S: Final = 10.0
_HOUR_MS: Final = 3600 * 1000
_DAY_MS: Final = 24 * _HOUR_MS
_SHOWN: Final = (("user_history", "applied"), ("user_history", "item"), ("user_interests", "weight"))


@dataclass
class Legality:
    """Which items may be shown, and since when others may not."""

    known: set[str]
    removed_at_s: dict[str, float] = field(default_factory=dict)  # monotonic, when every scorer had applied it

    def __call__(self, item_id: str, asked_at_s: float) -> bool:
        """Might `item_id` be shown to a request that was sent at `asked_at_s`?"""
        return item_id in self.known and asked_at_s < self.removed_at_s.get(item_id, float("inf"))


async def three_acts(
    settings: Settings, clock: PlatformClock, catalog: Catalog, traffic: Traffic, show: Show, user_id: str
) -> None:
    """One user's features and slate, before and after three acts of theirs: two plays to the end, and a like.

    The acts are on items that share their first code but not with the first item of the slate, so a
    changed interest is a changed slate.
    """
    before = await asyncio.to_thread(inspect_user, settings, user_id)
    slate = await traffic.ask(user_id, preview=True)
    items = _elsewhere(catalog, slate)
    now_ms = clock.now_ms()
    acts = [
        _act(f"demo-three-{number}", user_id, item, action, now_ms + number)
        for number, (item, action) in enumerate(
            zip((*items, items[-1]), (Action.ACTION_PLAY, Action.ACTION_PLAY, Action.ACTION_LIKE), strict=True)
        )
    ]
    for act in acts[:2]:
        act.play_ms = act.duration_ms = 30_000
    sent_at = time.monotonic()
    results = (await traffic.send(acts)).results
    last = max(results, key=lambda result: result.offset)
    while True:
        after_slate = await traffic.ask(user_id, preview=True)
        if after_slate.feature_cursor.offset >= last.offset:
            break
        if time.monotonic() - sent_at > SEEN_S:
            raise NotReady(f"three acts of user {user_id} were not in the features after {SEEN_S:.0f} s")
    took_ms = (time.monotonic() - sent_at) * 1000
    after = await asyncio.to_thread(inspect_user, settings, user_id)
    show.say(
        f"user {user_id}: two plays to the end and a like, on {', '.join(items)}; answered anew {took_ms:.0f} ms later"
    )
    show.table(
        "features",
        [
            {"view": view, "feature": name, "before": _short(before, view, name), "after": _short(after, view, name)}
            for view, name in _SHOWN
        ],
    )
    show.table(
        "slate",
        [
            {"position": one.position, "before": _item(catalog, one.item_id), "after": _item(catalog, two.item_id)}
            for one, two in zip(slate.items, after_slate.items, strict=False)
        ],
    )


async def two_places(recorded: Recorded, clock: PlatformClock, traffic: Traffic, show: Show, user_id: str) -> None:
    """The same user's slate at the two ends of their day, at the same moment: what is nearby changes with the user."""
    now_ms = clock.now_ms()
    day = [recorded.location_of(user_id, now_ms - now_ms % _DAY_MS + hour * _HOUR_MS) for hour in range(24)]
    known = [where for where in day if where is not None]
    if not known:
        return  # these days know no places
    first = known[0]
    away = max(known, key=lambda where: _distance_m(first, where))
    slates = [(await traffic.ask(user_id, preview=True, where=where)).items for where in (first, away)]
    show.say(f"user {user_id} asks from two places, {_distance_m(first, away) / 1000:.1f} km apart")
    show.table(
        "slate, with the distance from where the user is",
        [
            {"position": one.position, "first place": _away(one), "second place": _away(two)}
            for one, two in zip(*slates, strict=False)
        ],
    )


async def bad_input(
    clock: PlatformClock, catalog: Catalog, traffic: Traffic, producer: KafkaProducer, ledger: Ledger, user_id: str
) -> None:
    """Events that must be refused at the door, one by one; a good one among them; and poison straight on the topic."""
    now_ms, item = clock.now_ms(), catalog.items[0].item_id
    good = _act("demo-bad-good", user_id, item, Action.ACTION_VIEW, now_ms)
    bad = [_act(f"demo-bad-{number}", user_id, item, Action.ACTION_PLAY, now_ms) for number in range(6)]
    bad[0].action = 99  # type: ignore[assignment]
    bad[1].user_id = ""
    bad[2].item_id = ""
    bad[3].occurred_at.FromMilliseconds(now_ms + _DAY_MS)
    bad[4].play_ms = -5
    bad[5].location.latitude = 123.0
    results = (await traffic.send([*bad, good])).results
    if [result.kept for result in results] != [False] * len(bad) + [True]:
        raise NotReady(f"bad events were not told from good ones: {[result.field for result in results]}")
    # A producer that skips the door: one unreadable record, one event that the reader of the topic must refuse.
    await asyncio.wrap_future(send_record(producer, ACTIVITY, b"not a frame", partition=0, timestamp_ms=now_ms))
    ledger.count("poison_records")
    negative = _act("demo-bad-direct", user_id, item, Action.ACTION_PLAY, now_ms)
    negative.play_ms = -1
    await traffic.send_direct(negative)


async def change_catalog(client: Client, catalog: Catalog, legality: Legality, show: Show, shown: str) -> None:
    """`shown` is removed, another item made unavailable, and a new one added; each known to every scorer."""
    model = catalog.items[catalog.index_of(shown) or 0]
    added = Item()
    added.CopyFrom(model)
    added.item_id = "demo-new-item"
    other = next(item.item_id for item in catalog.items if item.item_id != shown)
    change = CatalogChange(upsert=added)
    away = CatalogChange()
    away.availability.item_id, away.availability.available = other, False
    legality.known.add(added.item_id)
    response = await client.update_catalog([change, CatalogChange(remove=shown), away])
    now = time.monotonic()
    refused = [f"{one.item_id}: {one.reason}" for one in response.results if not one.kept]
    if refused or not response.applied_by_all_scorers:
        raise NotReady(f"the catalogue did not follow within its deadline; refused: {refused or 'nothing'}")
    legality.removed_at_s |= {shown: now, other: now}
    show.say(f"catalogue: added {added.item_id}, removed {shown}, {other} unavailable; applied by every scorer")


def _act(event_id: str, user_id: str, item_id: str, action: Action.ValueType, at_ms: int) -> Interaction:
    act = Interaction(event_id=event_id, user_id=user_id, item_id=item_id, action=action, origin=ORIGIN_SIMULATED)
    act.occurred_at.FromMilliseconds(at_ms)
    return act


def _elsewhere(catalog: Catalog, slate: RecommendResponse) -> tuple[str, str]:
    """Two items that share a first code which no item of the slate has."""
    codes = catalog.codes[:, 0]
    taken = {item.codes[0] for item in slate.items if item.codes}
    shown = {item.item_id for item in slate.items}
    for first in range(int(codes.max()) + 1):
        members = [int(index) for index in (codes == first).nonzero()[0] if catalog.items[index].item_id not in shown]
        if first not in taken and len(members) > 1:
            return catalog.items[members[0]].item_id, catalog.items[members[1]].item_id
    raise NotReady("found no first code with two items outside the slate")


def _distance_m(one: Location, two: Location) -> float:
    return distance_m(one.latitude, one.longitude, two.latitude, two.longitude)


def _away(item: RecommendedItem) -> str:
    return f"{item.item_id}, {item.distance_m / 1000:.1f} km" if item.HasField("distance_m") else item.item_id


def _short(views: dict[str, dict[str, Any]], view: str, name: str) -> str:
    value = views.get(view, {}).get(name, "")
    return str(value[-5:]) if isinstance(value, list) else str(value)


def _item(catalog: Catalog, item_id: str) -> str:
    index = catalog.index_of(item_id)
    if index is None:
        return item_id
    return f"{item_id} ({'-'.join(str(code) for code in catalog.codes[index])})"
