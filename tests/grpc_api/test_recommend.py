"""RecommendService over a real channel: full answers, degraded ones, refusals, and what is logged of them."""

import asyncio
import math
import time

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from core.geo import cell_of, centre_of
from feature_repo.folds.popularity import cell_key
from feature_repo.layouts import GLOBAL_CELL
from grpc_api.selection import slot_log_probs
from models.batches import Beams, ContextBatch
from models.runtime import UniformGenerator
from models.trie import Trie
from models.values import SelectionWeights, Value
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Location, Origin
from protos.scoring.v1.recommend_pb2 import RecommendRequest, RecommendResponse
from tests.grpc_api.conftest import ScorerWorld, Wanted
from tests.grpc_api.world import CODES, HERE, NOW_MS, catalog_of, item, serving_of, user_rows
from tests.models.shelves import set_available

HERE_LOCATION = Location(latitude=HERE[0], longitude=HERE[1], accuracy_m=12.0)
PATIENT = 2.0


class Misbehaving(UniformGenerator):
    """A generator that sleeps or fails when told."""

    def __init__(self) -> None:
        super().__init__(16, CODES)
        self.sleep_s = 0.0
        self.fail = False

    def generate(self, batch: ContextBatch, trie: Trie) -> Beams:
        time.sleep(self.sleep_s)
        if self.fail:
            raise RuntimeError("out of memory")
        return super().generate(batch, trie)


class Foreseeing(UniformGenerator):
    """A generator that finds all paths equally likely, foresees a long watch of one item, and whose item head prefers
    another."""

    def __init__(self, wanted: int, preferred: int) -> None:
        super().__init__(16, CODES)
        self.wanted, self.preferred = wanted, preferred

    def generate(self, batch: ContextBatch, trie: Trie) -> Beams:
        beams = super().generate(batch, trie)
        odds = np.where(beams.items == self.wanted, 0.9, 0.1).astype(np.float32)
        beams.values[..., Value.WATCHED] = odds * (beams.items >= 0)
        beams.item_logits[beams.items == self.preferred] = 2.0
        return beams


def names(answer: RecommendResponse) -> list[str]:
    return [one.item_id for one in answer.items]


def sources(answer: RecommendResponse) -> list[str]:
    return [one.source for one in answer.items]


async def ask(
    scorer: ScorerWorld, user_id: str = "u", deadline_s: float = PATIENT, **fields: object
) -> RecommendResponse:
    request = RecommendRequest(user_id=user_id, **fields)  # type: ignore[arg-type]
    return await scorer.client.recommend(request, deadline_s=deadline_s)


@pytest.fixture
def known(scorer: ScorerWorld) -> ScorerWorld:
    """The scorer, with a user "u" who watched v0 a minute ago, and items popular everywhere."""
    scorer.store.users["u"] = user_rows([("v0", NOW_MS - 60_000)])
    scorer.store.popular(GLOBAL_CELL, "v9", "v8", "v7", "v0")
    return scorer


# --- full answers ---------------------------------------------------------------------------------


async def test_a_known_user_gets_the_generators_best(known: ScorerWorld) -> None:
    answer = await ask(known)
    assert len(answer.items) == 5
    assert set(sources(answer)) == {"generator"}
    assert not answer.degraded and not answer.explored
    assert answer.model_version == 3
    assert [one.position for one in answer.items] == [0, 1, 2, 3, 4]
    log_probs = [one.log_prob for one in answer.items]
    assert log_probs == sorted(log_probs, reverse=True)
    assert all(len(one.codes) == 3 for one in answer.items)
    assert (answer.feature_cursor.partition, answer.feature_cursor.offset) == (2, 41)
    assert {age.view: (age.found, age.age_ms) for age in answer.feature_ages} == {
        "user_interests": (True, 60_000),
        "user_history": (True, 60_000),
        "user_places": (False, 0),
        "cell_popularity": (True, 5_000),
    }
    assert [stage.stage for stage in answer.stage_times] == ["hydrate", "generate", "filter", "select"]
    assert "v0" not in names(answer)


async def test_an_unknown_user_is_answered_from_place_and_popularity(known: ScorerWorld) -> None:
    known.store.popular(cell_key(*HERE, 9), "p1", "p2")
    answer = await ask(known, user_id="nobody", location=HERE_LOCATION)
    assert names(answer) == ["p1", "p2", "v9", "v8", "v7"]
    assert sources(answer) == ["nearby", "nearby", "popular", "popular", "popular"]
    assert not answer.degraded
    assert answer.model_version == 0
    assert not answer.HasField("feature_cursor")
    assert answer.items[0].distance_m == pytest.approx(1112, abs=1)
    assert not answer.items[2].HasField("distance_m")


async def test_an_unknown_user_of_an_empty_world_still_gets_live_items(scorer: ScorerWorld) -> None:
    answer = await ask(scorer, user_id="nobody", slate_size=20)
    assert sources(answer) == ["catalog"] * 20
    assert not answer.degraded


@pytest.mark.parametrize(
    ("wanted", "first", "policy"),
    [
        (Wanted(weights=SelectionWeights(item=0.0, value=0.0)), "p6", "beam+pl@1"),
        (Wanted(weights=SelectionWeights(item=0.0, value=1.0)), "v5", "beam+value*1+pl@1"),
        (Wanted(weights=SelectionWeights(item=1.5, value=0.0)), "v7", "beam+item*1.5+pl@1"),
        (Wanted(weights=SelectionWeights(item=1.5, value=1.0)), "v7", "beam+item*1.5+value*1+pl@1"),
    ],
    ids=["by-beam", "by-value", "by-item", "by-both"],
)
async def test_what_the_heads_say_counts_by_its_weight_and_is_logged(
    known: ScorerWorld, first: str, policy: str
) -> None:
    catalog = known.host.serving.catalog
    wanted, preferred = catalog.index_of("v5"), catalog.index_of("v7")
    assert wanted is not None and preferred is not None
    known.host.swap(known.host.serving._replace(generator=Foreseeing(wanted, preferred)))
    assert names(await ask(known))[0] == first
    (impression,) = known.logged()
    found = {one.item_id: one for one in impression.candidates}
    assert round(found["v5"].values[Value.WATCHED], 1) == 0.9
    assert (found["v7"].item_logit, found["v5"].item_logit) == (2.0, 0.0)
    assert impression.policy_version == policy
    assert impression.slots[0].candidate_index >= 0


async def test_a_request_without_an_id_gets_one(known: ScorerWorld) -> None:
    first, second = await ask(known), await ask(known)
    assert first.request_id and second.request_id and first.request_id != second.request_id
    assert (await ask(known, request_id="mine")).request_id == "mine"


async def test_the_default_slate_has_five_items_and_none_twice(known: ScorerWorld) -> None:
    assert len((await ask(known)).items) == 5
    everything = await ask(known, slate_size=50)
    assert len(set(names(everything))) == len(everything.items) == 19  # all but what was just seen
    assert set(everything.degraded_reasons) == {"slate_short"}


async def test_excluded_items_are_shown_from_no_source(known: ScorerWorld) -> None:
    gone = ["v9", "v1", "p3"]
    answer = await ask(known, slate_size=50, exclude_item_ids=gone)
    assert not set(gone) & set(names(answer))
    assert len(answer.items) == 16


async def test_the_same_request_alone_and_in_a_full_batch_gets_the_same_slate(known: ScorerWorld) -> None:
    alone = names(await ask(known))
    crowd = await asyncio.gather(*(ask(known) for _ in range(12)))
    assert all(names(answer) == alone for answer in crowd)


# --- the catalogue is obeyed, whatever else fails ------------------------------------------------


@pytest.mark.parametrize("trouble", ["none", "store", "generator"])
async def test_what_is_not_live_is_never_shown(known: ScorerWorld, trouble: str) -> None:
    catalog = known.host.serving.catalog
    for name in ("v9", "p0", "v1"):
        set_available(catalog, name, False)
    catalog.remove("v8")
    known.store.down = trouble == "store"
    if trouble == "generator":
        broken = Misbehaving()
        broken.fail = True
        known.host.swap(known.host.serving._replace(generator=broken))
    answer = await ask(known, slate_size=50)
    assert not {"v9", "p0", "v1", "v8"} & set(names(answer))
    assert len(answer.items) >= 15


async def test_items_too_far_or_closed_fill_no_slot(known: ScorerWorld) -> None:
    answer = await ask(known, user_id="nobody", slate_size=50, location=Location(latitude=-33.0, longitude=151.0))
    assert all(name.startswith("v") for name in names(answer))


# --- degraded answers -----------------------------------------------------------------------------


async def test_a_store_that_is_down_costs_freshness_not_the_answer(known: ScorerWorld) -> None:
    before = await ask(known)
    known.store.down = True
    answer = await ask(known)
    assert answer.degraded
    assert list(answer.degraded_reasons) == ["store_unavailable", "features_stale"]
    assert names(answer) == names(before)
    assert answer.feature_cursor == before.feature_cursor


async def test_a_store_that_was_never_there_leaves_the_last_known_popularity(known: ScorerWorld) -> None:
    await ask(known, user_id="somebody else")
    known.store.down = True
    answer = await ask(known)
    assert list(answer.degraded_reasons) == ["store_unavailable", "features_absent"]
    assert names(answer)[:4] == ["v9", "v8", "v7", "v0"]
    assert sources(answer) == ["popular"] * 4 + ["catalog"]
    assert answer.model_version == 0


async def test_a_slow_store_is_not_waited_for_beyond_its_share(known: ScorerWorld) -> None:
    await ask(known)
    known.store.slow_s = 5.0
    started = time.monotonic()
    answer = await ask(known, deadline_s=0.3)
    assert time.monotonic() - started < 0.25
    assert list(answer.degraded_reasons) == ["store_late", "features_stale"]
    assert set(sources(answer)) == {"generator"}


@pytest.mark.parametrize("how", ["late", "failed"])
async def test_a_generator_in_trouble_leaves_popularity(known: ScorerWorld, how: str) -> None:
    trouble = Misbehaving()
    trouble.sleep_s, trouble.fail = (0.6, False) if how == "late" else (0.0, True)
    known.host.swap(known.host.serving._replace(generator=trouble))
    answer = await ask(known, deadline_s=0.3)
    assert list(answer.degraded_reasons) == [f"generator_{how}"]
    assert names(answer)[:3] == ["v9", "v8", "v7"]
    assert answer.model_version == 0


async def test_everything_down_at_once_is_still_an_answer(known: ScorerWorld) -> None:
    known.store.down = True
    trouble = Misbehaving()
    trouble.fail = True
    known.host.swap(known.host.serving._replace(generator=trouble))
    answer = await ask(known)
    assert sources(answer) == ["catalog"] * 5


async def test_after_trouble_answers_are_full_again(known: ScorerWorld) -> None:
    known.store.down = True
    assert (await ask(known)).degraded
    known.store.down = False
    assert not (await ask(known)).degraded


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 300}, "user_id"),
        ({"user_id": "nul\x00"}, "user_id"),
        ({"user_id": "u", "slate_size": 51}, "slate_size"),
        ({"user_id": "u", "location": Location(latitude=91)}, "location.latitude"),
        ({"user_id": "u", "location": Location(longitude=math.nan)}, "location.longitude"),
        ({"user_id": "u", "surface": "x" * 5000}, "surface"),
        ({"user_id": "u", "exclude_item_ids": ["i"] * 1001}, "exclude_item_ids"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_understood_is_refused_by_name(
    scorer: ScorerWorld, request_fields: dict[str, object], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await scorer.client.recommend(RecommendRequest(**request_fields), deadline_s=PATIENT)  # type: ignore[arg-type]
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(refused.value.details()).startswith(f"{field}: found")


async def test_an_oversized_request_exhausts_the_call(scorer: ScorerWorld) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(scorer, exclude_item_ids=["i" * 256] * 1000)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("wanted", [Wanted(max_queue=2)], ids=["queue-of-two"])
async def test_beyond_the_queue_limit_a_call_is_refused_at_once(known: ScorerWorld) -> None:
    known.store.slow_s = 0.5
    asked = [asyncio.create_task(ask(known)) for _ in range(2)]
    await asyncio.sleep(0.1)
    started = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(known)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert time.monotonic() - started < 0.2
    assert len(await asyncio.gather(*asked)) == 2
    known.store.slow_s = 0.0
    assert len((await ask(known)).items) == 5


async def test_a_lease_that_ran_out_stops_the_answers(known: ScorerWorld) -> None:
    known.lease.expired = True
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(known)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    known.lease.expired = False
    assert (await ask(known)).items


async def test_a_lease_that_runs_out_during_the_work_stops_the_answer(known: ScorerWorld) -> None:
    known.store.slow_s = 0.2
    asked = asyncio.create_task(ask(known))
    await asyncio.sleep(0.1)
    known.lease.expired = True
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asked
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert known.logged() == []


@pytest.mark.parametrize("wanted", [Wanted(opened=False)], ids=["not-loaded"])
async def test_before_a_model_is_loaded_calls_are_unavailable_and_health_says_so(scorer: ScorerWorld) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(scorer)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(TimeoutError):
        await scorer.client.wait_until_serving(0.2)
    scorer.service.open(scorer.parts)
    await scorer.listener.set_serving(True)
    await scorer.client.wait_until_serving(1.0)
    await scorer.client.wait_until_serving(1.0, "protos.scoring.v1.RecommendService")
    assert (await ask(scorer)).items


async def test_a_stop_says_not_serving_and_lets_calls_in_flight_end(known: ScorerWorld) -> None:
    known.store.slow_s = 0.3
    asked = asyncio.create_task(ask(known))
    await asyncio.sleep(0.1)
    stopping = asyncio.create_task(known.listener.stop(2.0))
    assert len((await asked).items) == 5
    await stopping


async def test_reflection_names_the_service(scorer: ScorerWorld) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(scorer.client._channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    answers = [answer async for answer in stub.ServerReflectionInfo(asked)]
    found = {service.name for service in answers[0].list_services_response.service}
    assert {"protos.scoring.v1.RecommendService", "grpc.health.v1.Health"} <= found


# --- impressions ----------------------------------------------------------------------------------


async def test_the_impression_holds_everything_learning_needs(known: ScorerWorld) -> None:
    known.store.users["u"] = user_rows([("v0", NOW_MS - 60_000)], place=HERE)
    request = {"surface": "feed", "session_id": "s", "location": HERE_LOCATION, "origin": Origin.ORIGIN_SIMULATED}
    answer = await ask(known, **request)
    (impression,) = known.logged()
    activity, user_id, at_ms = known.sink.sent[0]
    assert activity.WhichOneof("kind") == "impression"
    assert (user_id, at_ms) == ("u", NOW_MS)
    unset = {one.name for one in Impression.DESCRIPTOR.fields} - {one.name for one, _ in impression.ListFields()}
    assert unset == {"exploration", "degraded_reasons"}
    assert impression.request_id == answer.request_id
    assert impression.served_at.ToMilliseconds() == NOW_MS
    assert impression.catalog_offset == 17
    assert impression.policy_version == "beam+item*1.5+value*1+pl@1"
    assert impression.numeric_precision == "float32"
    coarse = centre_of(cell_of(*HERE, 9))
    assert (impression.location.latitude, impression.location.longitude) == coarse
    catalog = known.host.serving.catalog
    assert len(impression.candidates) == 16
    for candidate in impression.candidates:
        index = catalog.index_of(candidate.item_id)
        assert list(candidate.codes) == catalog.codes[index].tolist()
        assert len(candidate.masked_log_probs) == len(candidate.log_probs) == 3
    assert [slot.item_id for slot in impression.slots] == names(answer)
    for position, slot in enumerate(impression.slots):
        assert slot.position == position
        assert impression.candidates[slot.candidate_index].item_id == slot.item_id
    assert {removal.filter: removal.count for removal in impression.removals} == {"just_seen": 1}
    assert [candidate.removed_by for candidate in impression.candidates].count("just_seen") == 1


async def test_filled_slots_point_at_no_candidate(known: ScorerWorld) -> None:
    await ask(known, user_id="nobody")
    (impression,) = known.logged()
    assert [slot.candidate_index for slot in impression.slots] == [-1] * 5
    assert impression.model_version == 0
    assert not impression.HasField("feature_cursor")
    assert not impression.HasField("location")


@pytest.mark.parametrize("wanted", [Wanted(exploration_share=1.0)], ids=["always-explored"])
async def test_an_explored_slate_logs_the_exact_probability_of_its_draw(known: ScorerWorld) -> None:
    answer = await ask(known, slate_size=6)
    (impression,) = known.logged()
    assert answer.explored and set(sources(answer)) == {"explored"}
    exploration = impression.exploration
    assert exploration.method == "plackett_luce"
    assert answer.slate_log_prob == exploration.slate_log_prob
    assert sum(exploration.slot_log_probs) == pytest.approx(exploration.slate_log_prob)
    # Recomputed from what is logged alone: the kept candidates are all but the one just seen.
    left = [one for one in impression.candidates if one.item_id != "v0"]
    scores = np.array([np.sum(np.array(one.masked_log_probs, np.float32), dtype=np.float64) for one in left])
    order = [[one.item_id for one in left].index(slot.item_id) for slot in impression.slots]
    again = slot_log_probs(scores, order, exploration.temperature)
    assert list(exploration.slot_log_probs) == pytest.approx(again.tolist(), rel=1e-12)


@pytest.mark.parametrize("wanted", [Wanted(exploration_share=1.0)], ids=["always-explored"])
async def test_a_preview_is_neither_explored_nor_logged(known: ScorerWorld) -> None:
    answer = await ask(known, preview=True)
    assert not answer.explored
    assert known.logged() == []


@pytest.mark.parametrize("wanted", [Wanted(exploration_share=1.0)], ids=["always-explored"])
async def test_an_answer_without_candidates_is_not_called_explored(known: ScorerWorld) -> None:
    answer = await ask(known, user_id="nobody")
    assert not answer.explored
    (impression,) = known.logged()
    assert not impression.HasField("exploration")


@pytest.mark.parametrize("trouble", ["down", "silent"])
async def test_the_answer_does_not_wait_for_its_impression(known: ScorerWorld, trouble: str) -> None:
    setattr(known.sink, trouble, True)
    started = time.monotonic()
    assert len((await ask(known)).items) == 5
    assert time.monotonic() - started < 0.2
    pending = known.impressions.close(0.1)
    assert pending == (1 if trouble == "silent" else 0)


async def test_degraded_answers_are_logged_with_their_reasons(known: ScorerWorld) -> None:
    known.store.down = True
    await ask(known)
    (impression,) = known.logged()
    assert list(impression.degraded_reasons) == ["store_unavailable", "features_absent"]


# --- tiny catalogues ------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [Wanted(serving=serving_of(catalog_of([])))], ids=["no-items"])
async def test_an_empty_catalogue_gives_an_empty_slate(known: ScorerWorld) -> None:
    answer = await ask(known)
    assert names(answer) == []
    assert "slate_short" in answer.degraded_reasons


@pytest.mark.parametrize("wanted", [Wanted(serving=serving_of(catalog_of([item("only")])))], ids=["one-item"])
async def test_a_catalogue_of_one_shows_it(known: ScorerWorld) -> None:
    assert names(await ask(known)) == ["only"]
