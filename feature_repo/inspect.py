"""What is stored about one user, for people: what `nearfeed features show USER` prints."""

from typing import Any

from core.clock import as_datetime
from core.settings import Settings
from feature_repo import values
from feature_repo.schema import USER_HISTORY
from feature_repo.store import PackedStore
from protos.events.v1.interaction_pb2 import Action


def inspect_user(settings: Settings, user_id: str) -> dict[str, dict[str, Any]]:
    """The values of each view by name, with `updated_at` in ISO 8601; an empty dict where nothing is stored.

    Raises:
        StoreUnavailable: PostgreSQL did not answer in time.
    """
    with PackedStore(settings.postgres, "nearfeed-inspect", connections=1) as store:
        rows = store.read_users([user_id])
    shown: dict[str, dict[str, Any]] = {}
    for view, column in zip(values.USER_VIEWS, rows[:4], strict=True):
        row = column[0].tobytes()
        at_ms = values.updated_ms(view, row)
        shown[view.name] = {"updated_at": as_datetime(at_ms).isoformat(), **values.decode(view, row)} if at_ms else {}
    history = shown[USER_HISTORY]
    if history:
        history["actions"] = [action_names(bits) for bits in history["actions"]]
    return shown


def action_names(bits: int) -> list[str]:
    """The acts behind a history entry's bits, e.g. ["play", "like"]."""
    return [
        Action.Name(action).removeprefix("ACTION_").lower()
        for action in Action.values()
        if action and bits >> (action - 1) & 1
    ]
