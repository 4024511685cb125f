"""The law of comparing: every key of either side is judged once."""

from hypothesis import given
from hypothesis import strategies as st

from streams.replay_verify import differences

SIDES = st.dictionaries(st.tuples(st.text(max_size=2), st.integers(0, 2)), st.sampled_from("ab"), max_size=12)


@given(serving=SIDES, replayed=SIDES)
def test_every_row_is_equal_differing_or_on_one_side(
    serving: dict[tuple[str, int], str], replayed: dict[tuple[str, int], str]
) -> None:
    expected = {
        key: "only_replay"
        if key not in serving
        else "only_serving"
        if key not in replayed
        else "equal"
        if serving[key] == replayed[key]
        else "differing"
        for key in serving.keys() | replayed.keys()
    }
    found = list(differences(sorted(serving.items()), sorted(replayed.items())))
    assert len(found) == len(expected)
    assert dict(found) == expected
