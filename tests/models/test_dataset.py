"""Laws of samples: what a scorer would have read before the exposure, and nothing of the exposure itself."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core.ids import item_key
from feature_repo.folds.context import FoldContext, Record
from feature_repo.folds.history import EXPOSURE_S
from feature_repo.folds.user import EMPTY, fold_record
from models.catalog import Catalog
from models.dataset import Samples, example_contexts, folded_samples
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action, Interaction, Location
from tests.models.shelves import shop

START_MS = 1_651_000_000_000
CATALOG: Catalog = shop().catalog
CONTEXT = FoldContext(CATALOG, CATALOG.tokenizer.version, 1_800_000, 9)


def act(user: str, item: str, second: int, action: Action = Action.ACTION_LIKE, **fields: object) -> Interaction:
    event = Interaction(
        event_id=f"{user}-{item}-{second}-{action}", user_id=user, item_id=item, action=action, **fields
    )
    event.occurred_at.FromMilliseconds(START_MS + 1000 * second)
    return event


def states_before(log: list[Interaction], count: int) -> bytes:
    """The rows after the first `count` interactions, each a record of its own, folded as streaming does."""
    state = EMPTY
    for offset, event in enumerate(log[:count]):
        at_ms = event.occurred_at.ToMilliseconds()
        state, _ = fold_record(state, [Activity(interaction=event)], Record(0, offset, at_ms, at_ms), CONTEXT)
    return state.row.tobytes()


def rows_of(samples: Samples, place: int) -> bytes:
    return b"".join(view[place].tobytes() for view in samples.rows[:4])


def test_rows_are_those_before_the_exposure() -> None:
    log = [act("u", "0-0", 0), act("u", "0-1", 60, Action.ACTION_VIEW), act("u", "0-2", 120)]
    samples = folded_samples(log, CONTEXT)
    assert samples.items.tolist() == [item_key("0-0"), item_key("0-2")]
    assert samples.at_ms.tolist() == [START_MS, START_MS + 120_000]
    assert rows_of(samples, 0) == states_before(log, 0)
    assert rows_of(samples, 1) == states_before(log, 2)


def test_a_like_after_a_view_is_one_sample_from_before_the_view() -> None:
    log = [
        act("u", "0-0", 0),
        act("u", "0-1", 10, Action.ACTION_VIEW),
        act("u", "0-2", 20, Action.ACTION_VIEW),
        act("u", "0-1", 30),
        act("u", "0-1", 40, Action.ACTION_COMMENT),
    ]
    samples = folded_samples(log, CONTEXT)
    assert samples.items.tolist() == [item_key("0-0"), item_key("0-1")]
    assert samples.at_ms[1] == START_MS + 10_000
    assert rows_of(samples, 1) == states_before(log, 1)


def test_the_same_item_much_later_is_another_exposure() -> None:
    log = [act("u", "0-0", 0), act("u", "0-0", EXPOSURE_S), act("u", "0-0", EXPOSURE_S + 1)]
    samples = folded_samples(log, CONTEXT)
    assert samples.at_ms.tolist() == [START_MS, START_MS + 1000 * (EXPOSURE_S + 1)]


def test_a_dislike_undoes_the_exposure() -> None:
    log = [act("u", "0-0", 0), act("u", "0-0", 5, Action.ACTION_DISLIKE), act("u", "0-1", 9)]
    assert folded_samples(log, CONTEXT).items.tolist() == [item_key("0-1")]


def test_a_long_view_is_good_and_a_short_one_is_not() -> None:
    plays = [("0-0", 10_000), ("0-1", 9_999), ("9-9", 18_000), ("9-8", 17_999)]  # shop items last 10 s
    log = [
        act("u", item, 100 * place, Action.ACTION_PLAY, play_ms=play_ms) for place, (item, play_ms) in enumerate(plays)
    ]
    assert folded_samples(log, CONTEXT).items.tolist() == [item_key("0-0"), item_key("9-9")]


def test_only_exposures_of_the_range_are_given_and_all_acts_are_folded() -> None:
    log = [act("u", f"0-{number}", 60 * number) for number in range(6)]
    whole = folded_samples(log, CONTEXT)
    part = folded_samples(log, CONTEXT, since_ms=START_MS + 120_000, until_ms=START_MS + 240_000)
    assert part.items.tolist() == whole.items[2:4].tolist()
    assert [rows_of(part, place) for place in (0, 1)] == [rows_of(whole, place) for place in (2, 3)]


def test_a_retry_changes_nothing() -> None:
    log = [act("u", "0-0", 0), act("u", "0-1", 60), act("u", "0-2", 120)]
    again = folded_samples([*log[:2], log[0], log[2]], CONTEXT)
    assert again.items.tolist() == folded_samples(log, CONTEXT).items.tolist()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 3)), max_size=30))
def test_users_do_not_touch_each_other(steps: list[tuple[int, int, int]]) -> None:
    kinds = [Action.ACTION_LIKE, Action.ACTION_VIEW, Action.ACTION_CLICK, Action.ACTION_DISLIKE]
    log = [act(f"u{user}", f"0-{item}", 500 * place, kinds[kind]) for place, (user, item, kind) in enumerate(steps)]
    together = folded_samples(log, CONTEXT)
    assert (np.diff(together.at_ms) >= 0).all()
    for user in {event.user_id for event in log}:
        alone = folded_samples([event for event in log if event.user_id == user], CONTEXT)
        mine = [place for place, name in enumerate(together.users) if name == user]
        assert together.items[mine].tolist() == alone.items.tolist()
        assert [rows_of(together, place) for place in mine] == [rows_of(alone, place) for place in range(len(mine))]


def test_contexts_leave_out_items_that_the_catalogue_does_not_know() -> None:
    here = Location(latitude=31.0, longitude=121.0)
    log = [act("u", "0-0", 0), act("u", "unknown", 60), act("u", "0-1", 120, location=here)]
    batch, items = example_contexts(folded_samples(log, CONTEXT), CATALOG)
    assert items.tolist() == [[CATALOG.index_of("0-0")], [CATALOG.index_of("0-1")]]
    assert batch.mask.any(axis=1).tolist() == [False, True]
    assert batch.place[:, 0].tolist() == [0.0, 1.0]  # the request's own place is known only for the second


def test_no_interactions_are_no_samples() -> None:
    samples = folded_samples([], CONTEXT)
    assert (len(samples.users), samples.items.shape, samples.rows.history.shape) == (0, (0,), (0,))
    batch, items = example_contexts(samples, CATALOG)
    assert (batch.mask.shape[0], items.shape) == (0, (0, 1))
