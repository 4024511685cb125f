"""The demo on recorded short-video days: KuaiRand, 2022-04-25 to 2022-05-05.

The first days train; 2022-05-02 on is replayed for a fifth of the users and their past goes through the
log before. Chosen by a hash of the user id, so that nobody is picked for being easy.
"""

from heapq import merge
from typing import Final

from core.ids import event_hash
from infra.demo.recorded import Recorded
from infra.demo.training import FirstArguments, FirstVersion
from models import kuairand
from protos.events.v1.interaction_pb2 import Interaction
from rl.user_model import UserModel

FIRST_DAY: Final = "2022-04-25"  # the first whole one, and the first without acts of nominal time (models.kuairand)
LIVE_SHARE: Final = 5  # every fifth user is live
PAST_SHARE: Final = 2  # of the others, every second one's past is learned from: what two minutes on two cores allow
IMPORTED_VIDEOS: Final = 12  # per user, from the lists without times
SPEED: Final = 720.0  # a recorded day in two minutes


class KuaiRand:
    """The scenario of `make demo`."""

    def recorded(self) -> Recorded:
        """The excerpt, cut into what may be learned from and what is replayed."""
        excerpt = kuairand.read_excerpt()
        start_ms, live_ms = kuairand.day_start_ms(FIRST_DAY), kuairand.day_start_ms(kuairand.LIVE_DAY)
        days = [event for event in kuairand.interactions(excerpt, 0, live_ms) if _is_known(event.user_id)]
        live = [event for event in kuairand.interactions(excerpt, live_ms) if _is_live(event.user_id)]
        users = {event.user_id for event in (*days, *live)}
        before = sorted(kuairand.imported_acts(excerpt, last=IMPORTED_VIDEOS, users=users), key=_at_ms)
        past = list(merge(before, days, key=_at_ms))  # some lists end after the recorded days have begun
        return Recorded(
            name="kuairand",
            title="KuaiRand-Pure, 2 May 2022 on",
            items=kuairand.items(excerpt),
            sequences=kuairand.sequences(excerpt, live_ms),
            earlier=kuairand.sequences(excerpt, start_ms),
            past=past,
            training_start_ms=start_ms,
            imported=[event for event in past if _is_live(event.user_id)],
            live=live,
            live_start_ms=live_ms,
            speed=SPEED,
            location_of=lambda user_id, at_ms: None,
        )

    def arguments(self) -> FirstArguments:
        """The defaults were chosen on these days."""
        return FirstArguments()

    def user_model(self, first: FirstVersion) -> UserModel:
        """The one that was fitted and published with version 1."""
        return first.fitted.users

    def judge_arguments(self) -> tuple[str, ...]:
        """Nothing: the published user model judges."""
        return ()


def _is_live(user_id: str) -> bool:
    return event_hash(user_id) % LIVE_SHARE == 0


def _is_known(user_id: str) -> bool:
    return _is_live(user_id) or event_hash(user_id) // LIVE_SHARE % PAST_SHARE == 0


def _at_ms(event: Interaction) -> int:
    return event.occurred_at.ToMilliseconds()
