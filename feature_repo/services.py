"""Feature services: one per model contract. What a model reads is named here and in its manifest."""

from typing import Final

from feast import FeatureService

from feature_repo.views import OWNER, cell_popularity, user_history, user_interests, user_places

generator_v1: Final = FeatureService(
    name="generator_v1",
    features=[user_interests, user_history, user_places, cell_popularity],
    description="What the generator reads of a user and the cells around, models/contexts.py",
    tags={"model": "generator"},
    owner=OWNER,
)

services: Final = (generator_v1,)
