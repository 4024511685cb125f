"""What the value head learns from: every exposure once, in the context of its moment, and what the acts say of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.errors import InputError
from feature_repo.folds.act import long_view_ms
from feature_repo.folds.history import EXPOSURE_S
from models.catalog import Catalog
from models.generator import Generator
from models.train_value_head import odds_of
from models.values import WORTH, Value
from protos.events.v1.interaction_pb2 import Action, Interaction
from rl.city_users import recorded_days
from rl.rewards import BONUSES
from rl.shown import shown_of_log
from tests.rl.loop import NOON_OF_DAY_TWO, SHAPE, World


@pytest.fixture(scope="module")
def events(world: World) -> list[Interaction]:
    return recorded_days(world.city)


@pytest.fixture(scope="module")
def generator(world: World) -> Generator:
    torch.manual_seed(0)
    return Generator(replace(SHAPE, value_items=len(world.serving.catalog))).eval()


def plain_exposures(events: list[Interaction], catalog: Catalog) -> list[tuple[int, int, list[bool]]]:
    """By the definition, act by act: (first act, item, outcomes) of all that begin before NOON_OF_DAY_TWO."""
    found: list[tuple[int, int, list[Interaction]]] = []
    running: dict[tuple[str, int], tuple[int, int, list[Interaction]]] = {}
    for event in sorted(events, key=lambda one: one.occurred_at.ToMilliseconds()):
        at_ms, index = event.occurred_at.ToMilliseconds(), catalog.index_of(event.item_id)
        if at_ms >= NOON_OF_DAY_TWO or index is None:
            continue
        exposure = running.get((event.user_id, index))
        if exposure is None or at_ms - exposure[0] > EXPOSURE_S * 1000:
            exposure = running[event.user_id, index] = (at_ms, index, [])
            found.append(exposure)
        exposure[2].append(event)
    return sorted((at_ms, index, plain_outcomes(acts)) for at_ms, index, acts in found)


def plain_outcomes(acts: list[Interaction]) -> list[bool]:
    """Plays of one exposure are one watch."""
    kinds = {act.action for act in acts}
    watched = sum(act.play_ms for act in acts) >= long_view_ms(max(act.duration_ms for act in acts))
    return [watched, Action.ACTION_LIKE in kinds, bool(kinds & {Action.ACTION_ORDER, Action.ACTION_CHECK_IN})]


def test_every_exposure_is_there_once_with_what_its_acts_say(
    world: World, events: list[Interaction], generator: Generator
) -> None:
    shown = shown_of_log(events, generator, world.serving.catalog, world.context, until_ms=NOON_OF_DAY_TWO)
    assert (np.diff(shown.at_ms) >= 0).all()
    found = zip(shown.at_ms.tolist(), shown.items.tolist(), shown.outcomes.tolist(), strict=True)
    assert sorted(found) == plain_exposures(events, world.serving.catalog)
    assert shown.outcomes.any(axis=0).all()


def test_acts_after_an_exposure_change_nothing_of_what_was_known_before_it(
    world: World, events: list[Interaction], generator: Generator
) -> None:
    catalog = world.serving.catalog
    whole = shown_of_log(events, generator, catalog, world.context, until_ms=NOON_OF_DAY_TWO)
    middle = int(whole.at_ms[len(whole.at_ms) // 2])
    earlier = [event for event in events if event.occurred_at.ToMilliseconds() < middle]
    part = shown_of_log(earlier, generator, catalog, world.context, until_ms=middle)
    before = whole.at_ms < middle
    order, other = (np.lexsort((each.items, each.at_ms)) for each in (whole, part))
    order = order[before[order]]
    odds = odds_of(generator, whole, catalog.codes)[order]
    np.testing.assert_allclose(odds, odds_of(generator, part, catalog.codes)[other], atol=1e-6)
    torch.testing.assert_close(whole.states[torch.from_numpy(order)], part.states[torch.from_numpy(other)])


def test_days_without_exposures_are_refused(world: World, events: list[Interaction], generator: Generator) -> None:
    with pytest.raises(InputError, match="name other days"):
        shown_of_log(events, generator, world.serving.catalog, world.context, since_ms=1 << 60)


def test_what_an_outcome_is_worth_is_what_rewards_give_for_it() -> None:
    """A long watch is worth the best watch."""
    assert WORTH[Value.LIKED] == pytest.approx(BONUSES[Action.ACTION_LIKE].value)
    assert WORTH[Value.ORDERED] == BONUSES[Action.ACTION_ORDER].value == BONUSES[Action.ACTION_CHECK_IN].value
    assert WORTH[Value.WATCHED] == 1.0
