"""The demo in a synthetic city: places with opening hours and prices, people who move, orders and visits.

Three days train, the next two are replayed; every event and every request says where the user is. The city's
own people act on slates and judge the update, so the user model is the truth here, not a fit.
"""

from typing import Final

import numpy as np

from feature_repo.folds.act import NoItems, act_of, is_positive
from infra.demo.recorded import Recorded
from infra.demo.training import FirstArguments, FirstVersion
from models.generator_config import GeneratorConfig
from models.train_arguments import TrainArguments
from models.train_semantic_ids import SemanticIdArgs
from protos.events.v1.interaction_pb2 import Interaction
from rl.city import CityConfig, make_city
from rl.city_users import CityUsers, recorded_days
from rl.user_model import UserModel

SPEED: Final = 720.0  # a day in two minutes
TRAINING_DAYS: Final = 3
LIVE_DAYS: Final = 2  # more than a run replays
CODES: Final = 16  # per level: 4,096 paths for 400 places
_DAY_MS: Final = 24 * 3600 * 1000


class Town:
    """The scenario of `make demo-city`."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._city = make_city(CityConfig(seed=seed, days=TRAINING_DAYS + LIVE_DAYS))

    def recorded(self) -> Recorded:
        """The city's days, cut before the live ones."""
        config = self._city.config
        live_ms = config.start_ms + TRAINING_DAYS * _DAY_MS
        events = recorded_days(self._city)
        past = [event for event in events if _at_ms(event) < live_ms]
        return Recorded(
            name="city",
            title=f"A synthetic city, seed {self._seed}",
            items=self._city.places.items,
            sequences=_sequences(past),
            earlier=[],
            past=past,
            training_start_ms=config.start_ms,
            imported=past,
            live=[event for event in events if _at_ms(event) >= live_ms],
            live_start_ms=live_ms,
            speed=SPEED,
            location_of=self._city.location_of,
        )

    def arguments(self) -> FirstArguments:
        """Fewer places and fewer codes; more passes, for there are few examples."""
        return FirstArguments(
            semantic_ids=SemanticIdArgs(codebook_size=CODES),
            generator=TrainArguments(config=GeneratorConfig(codebook_size=CODES), epochs=12, train_s=40.0),
        )

    def user_model(self, first: FirstVersion) -> UserModel:
        """The people of the city themselves."""
        return CityUsers(self._city, first.catalog)

    def judge_arguments(self) -> tuple[str, ...]:
        """The same people judge the update."""
        return ("--city", str(self._seed))


def _sequences(events: list[Interaction]) -> list[np.typing.NDArray[np.int64]]:
    """Per user, the places they acted well on, oldest first."""
    liked: dict[str, list[int]] = {}
    for event in events:
        act = act_of(event, NoItems())
        if is_positive(act):
            liked.setdefault(act.user_id, []).append(act.item_key)
    return [np.array(keys, np.int64) for keys in liked.values()]


def _at_ms(event: Interaction) -> int:
    return event.occurred_at.ToMilliseconds()
