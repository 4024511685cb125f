"""What a demo is about: whose recorded days are replayed, and how people act on what they are shown."""

from typing import Protocol

from infra.demo.recorded import Recorded
from infra.demo.training import FirstArguments, FirstVersion
from rl.user_model import UserModel


class Scenario(Protocol):
    """One demo."""

    def recorded(self) -> Recorded:
        """Its input."""

    def arguments(self) -> FirstArguments:
        """How version 1 is trained."""

    def user_model(self, first: FirstVersion) -> UserModel:
        """How its people act on slates, stated on earlier days only."""

    def judge_arguments(self) -> tuple[str, ...]:
        """What `nearfeed learn` is told about who judges the update."""
