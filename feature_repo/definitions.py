"""The one file that `feast apply` reads; .feastignore hides the others from it.

Feast imports files by their bare names. Were it to import views.py too, every view would exist twice
and apply would end with ConflictingFeatureViewNames; the full package names below avoid that.
"""

from feature_repo.services import generator_v1
from feature_repo.views import (
    cell,
    cell_popularity,
    item,
    item_statistics,
    user,
    user_history,
    user_interests,
    user_places,
    user_watch,
)

__all__ = [
    "cell",
    "cell_popularity",
    "generator_v1",
    "item",
    "item_statistics",
    "user",
    "user_history",
    "user_interests",
    "user_places",
    "user_watch",
]
