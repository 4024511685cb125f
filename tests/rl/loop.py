"""A small city in one process: the log, the states, served slates and their outcomes, as the platform makes them."""

import itertools
import json
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from core.ids import item_key
from core.partition import partition_of
from core.topics import ACTIVITY
from feature_repo.folds.context import FoldContext, Record
from feature_repo.folds.user import EMPTY, UserState, fold_record, rows_of
from feature_repo.layouts import UserRows
from models.artefact import Artefact, load_artefact
from models.batches import ContextBatch
from models.catalog import Catalog
from models.catalog_files import save_catalog
from models.contexts import context_batch
from models.examples import Examples
from models.export import export_generator
from models.generator_config import GeneratorConfig
from models.golden import Golden, save_golden
from models.neighbours import neighbour_tables
from models.registry import GOLDEN_FILE, MODEL_FILE, WEIGHTS_FILE, publish, stage
from models.train_arguments import TrainArguments
from models.train_generator import train_generator
from models.train_semantic_ids import SemanticIdArgs, train_semantic_ids
from protos.events.v1.activity_pb2 import Activity, ActivityFrame
from protos.events.v1.impression_pb2 import Candidate, Impression, Slot
from protos.events.v1.interaction_pb2 import Action, Interaction, Location
from protos.events.v1.outcome_pb2 import Outcome
from protos.registry.v1.manifest_pb2 import ModelManifest
from rl.city import City, CityConfig, make_city, sessions
from rl.city_users import CityUsers, recorded_days
from rl.log import LogRecord
from rl.rewards import GlobalTable, fit_global_table
from rl.simulator import Slate, slate_acts
from rl.user_model import Viewers

PARTITIONS = 2
HORIZON_MS = 30 * 60 * 1000
SLOTS = 5
CONFIG = CityConfig(seed=5, places=90, people=70, days=2)
SHAPE = GeneratorConfig(codebook_size=8, d_model=32, layers=2, heads=4, kv_groups=4, d_feature=4, prior=True)
NOON_OF_DAY_TWO = CONFIG.start_ms + 36 * 3_600_000


class World(NamedTuple):
    """Everything that a turn of learning starts from."""

    home: Path  # registry with version 1
    serving: Artefact
    city: City
    users: CityUsers
    table: GlobalTable
    context: FoldContext
    log: list[LogRecord]
    outcomes: list[Outcome]
    read: dict[str, bytes]  # request -> the rows that the scorer had read


class _Workers:
    """The log and the states that follow from it."""

    def __init__(self, context: FoldContext) -> None:
        self.context = context
        self.log: list[LogRecord] = []
        self.states: dict[str, UserState] = {}
        self.outcomes: list[Outcome] = []
        self._next: defaultdict[int, int] = defaultdict(int)
        self._now: defaultdict[int, int] = defaultdict(int)

    def write(self, user_id: str, at_ms: int, *activities: Activity) -> None:
        """One record, folded at once."""
        partition = partition_of(user_id, PARTITIONS)
        offset = self._next[partition]
        self._next[partition] += 1
        self._now[partition] = max(self._now[partition], at_ms)
        frame = ActivityFrame(schema_version=1, activities=activities).SerializeToString()
        self.log.append(LogRecord(ACTIVITY, partition, offset, at_ms, frame))
        record = Record(partition, offset, self._now[partition], at_ms)
        before = self.states.get(user_id, EMPTY)
        self.states[user_id], result = fold_record(before, activities, record, self.context)
        self.outcomes += result.outcomes

    def close(self, at_ms: int) -> None:
        for user_id, state in self.states.items():
            self.states[user_id], result = fold_record(state, (), Record(0, 0, at_ms, at_ms), self.context)
            self.outcomes += result.outcomes


def make_world(home: Path) -> World:
    """Two recorded days train version 1 for a moment; half a day is served with it, and acted on."""
    city = make_city(CONFIG)
    events = recorded_days(city)
    learned = _sequences(events)
    catalog = train_semantic_ids(city.places.items, learned, SemanticIdArgs(codebook_size=SHAPE.codebook_size)).catalog
    catalog.neighbours = neighbour_tables(catalog.items, [catalog.indices_of(keys) for keys in learned])
    context = FoldContext(catalog, 1, HORIZON_MS, 9)
    users = CityUsers(city, catalog)
    plays = [event for event in events if event.HasField("play_ms")]
    table = fit_global_table([event.duration_ms / 1000 for event in plays], [event.play_ms / 1000 for event in plays])
    workers = _Workers(context)
    examples: list[tuple[UserState, int, int]] = []
    for event in events:
        if event.occurred_at.ToMilliseconds() < NOON_OF_DAY_TWO:
            if event.action in (Action.ACTION_ORDER, Action.ACTION_CHECK_IN, Action.ACTION_LIKE):
                index = catalog.index_of(event.item_id)
                assert index is not None
                before = workers.states.get(event.user_id, EMPTY)
                examples.append((before, index, event.occurred_at.ToMilliseconds()))
            workers.write(event.user_id, event.occurred_at.ToMilliseconds(), Activity(interaction=event))
    serving = _publish_first(home, catalog, examples)
    read = _serve(workers, serving, city, users, context)
    return World(home, serving, city, users, table, context, workers.log, workers.outcomes, read)


def _sequences(events: list[Interaction]) -> list[np.ndarray]:  # type: ignore[type-arg]
    by_user: defaultdict[str, list[int]] = defaultdict(list)
    for event in events:
        if event.action == Action.ACTION_CLICK:
            by_user[event.user_id].append(item_key(event.item_id))
    return [np.array(keys, np.int64) for keys in by_user.values()]


def _publish_first(home: Path, catalog: Catalog, examples: list[tuple[UserState, int, int]]) -> Artefact:
    rows = rows_of([state for state, _, _ in examples])
    contexts = context_batch(rows, catalog, np.array([at_ms for _, _, at_ms in examples]))
    items = np.array([[index] for _, index, _ in examples], np.int32)
    args = TrainArguments(
        config=replace(SHAPE, items=len(catalog), item_head=True, value_items=len(catalog)), epochs=2, batch_size=64
    )
    generator = train_generator(Examples(contexts, items), catalog.codes, args, trie=catalog.trie).generator
    with torch.no_grad():
        generator.value_head.rates.normal_()  # no fit, but values that differ
    golden = ContextBatch._make(field[:4] for field in contexts)
    staged = stage(home)
    beams = export_generator(generator, staged / MODEL_FILE, golden, catalog.trie, beam_width=24)
    save_golden(Golden(golden, beams), staged / GOLDEN_FILE)
    save_catalog(catalog, staged)
    torch.save(generator.state_dict(), staged / WEIGHTS_FILE)
    manifest = ModelManifest(
        tokenizer_version=1,
        catalog_digest=catalog.digest(),
        training_arguments_json=json.dumps({"generator": asdict(args)}),
        beam_width=24,
    )
    return load_artefact(home, publish(home, staged, manifest), threads=1)


def _serve(
    workers: _Workers, serving: Artefact, city: City, users: CityUsers, context: FoldContext
) -> dict[str, bytes]:
    """Every session of the afternoon asks once, is shown the best beams and acts on them."""
    rng, numbers, read = np.random.default_rng(9), itertools.count(), dict[str, bytes]()
    last_ms = NOON_OF_DAY_TWO
    for person, at_ms in sessions(city):
        if at_ms < NOON_OF_DAY_TWO:
            continue
        user_id, request_id = city.people.user_ids[person], f"request-{person}-{at_ms}"
        known = user_id in workers.states
        rows = rows_of([workers.states.get(user_id, EMPTY)])
        location = city.location_of(user_id, at_ms)
        assert location is not None
        impression = _impression(serving, rows, request_id, user_id, at_ms, location)
        if known:
            history = workers.states[user_id].row["history"][0]
            impression.feature_cursor.partition = history["log_partition"]
            impression.feature_cursor.offset = history["log_offset"]
        read[request_id] = row_bytes(rows, 0)
        workers.write(user_id, at_ms, Activity(impression=impression))
        slate = Slate(request_id, at_ms, [slot.item_id for slot in impression.slots], location)
        where = np.array([[location.latitude, location.longitude]])
        viewers = Viewers([user_id], rows, np.array([at_ms]), where)
        acts = slate_acts(users, serving.catalog, viewers, slate, rng=rng, new_id=lambda: f"act-{next(numbers)}")
        for act in acts:
            last_ms = max(last_ms, act.occurred_at.ToMilliseconds())
            workers.write(user_id, act.occurred_at.ToMilliseconds(), Activity(interaction=act))
    workers.close(last_ms + 2 * HORIZON_MS)
    return read


def _impression(
    serving: Artefact, rows: UserRows, request_id: str, user_id: str, at_ms: int, location: Location
) -> Impression:
    batch = context_batch(rows, serving.catalog, at_ms, [[location.latitude, location.longitude]])
    beams = serving.generator.generate(batch, serving.catalog.trie)
    impression = Impression(
        request_id=request_id, user_id=user_id, location=location, model_version=1, tokenizer_version=1
    )
    impression.served_at.FromMilliseconds(at_ms)
    for rank, item in enumerate(beams.items[0, :SLOTS].tolist()):
        item_id = serving.catalog.items[item].item_id
        impression.candidates.append(
            Candidate(
                item_id=item_id,
                codes=beams.codes[0, rank].tolist(),
                masked_log_probs=beams.masked_log_probs[0, rank].tolist(),
            )
        )
        impression.slots.append(Slot(item_id=item_id, position=rank, source="generator", candidate_index=rank))
    return impression


def row_bytes(rows: UserRows, at: int) -> bytes:
    """The four view rows of one user."""
    return b"".join(view[at].tobytes() for view in rows[:4])
