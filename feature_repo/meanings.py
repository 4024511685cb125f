"""What every feature says, in a line with its unit: for `feast ui` and for docs/features.md.

Names are distinct over all views (feature_repo/values.py), so the name alone is the key.
"""

from typing import Final

MEANINGS: Final = {
    # user_interests
    "tokenizer": "version of the tokenizer and item vectors that all of the view was computed with; 0 = none yet",
    "weight": "decayed sum of engagement weights behind long_term; half-life 7 days, as of the row's time",
    "short_weight": "the same behind short_term; half-life 20 minutes",
    "long_term": "decayed mean of vectors of the items acted on, dislikes negative; its length says how far they agree",
    "short_term": "the same over about one session",
    "interest_weight": "decayed weight behind each of the 3 interests; 0 = unused",
    "interest": "3 vectors, one after another: means of the acts nearest to each",
    "tier_items": "liked items behind the tiers; all counts are halved at 255",
    "tiers": "64 x 4 counts: liked items by group of first-level codes and tier of similarity to its prototype",
    # user_history
    "applied": "interactions of the user applied, ever",
    "duplicates": "activities passed over because their id was among the last 64 seen",
    "log_partition": "partition of the newest activity.v1 record of the user",
    "log_offset": "its offset: everything of the user up to there is in the row",
    "item": "keys of the last 50 items acted on, oldest first (core/ids.py: a decimal id is its own key)",
    "at_s": "when each was first acted on, seconds since 1970, event time",
    "actions": "bit (Action - 1) for each kind of act on it (protos/events/v1/interaction.proto)",
    "watch": "share watched, percent of its length, at most 250; 255 = not known",
    "positive_item": "items liked, ordered, watched for long ..., oldest first; beyond 48 the commonest code gives way",
    "positive_at_s": "when, seconds since 1970, event time",
    "positive_code": "first-level code of each under `tokenizer`, or its group of more than 64; 255 = not known",
    # user_watch
    "plays_ever": "plays per bucket of item length: bucket k holds 2^k .. 2^(k+1) seconds, 0 and 11 are open",
    "plays_kept": "play times kept per bucket, at most 24",
    "play_ds": "the newest play times, tenths of a second, oldest first, bucket after bucket",
    # user_places
    "last_cell": "H3 cell of the newest act with a location; 0 = none",
    "last_latitude": "centre of that cell, degrees",
    "last_longitude": "centre of that cell, degrees",
    "home_cell": "H3 cell of most acts between 22 and 6 h, local solar time; 0 = not known",
    "work_cell": "H3 cell of most acts between 9 and 17 h on weekdays that is not home; 0 = not known",
    "radius_m": "decayed mean distance from the mean position, metres",
    "mean_latitude": "decayed mean position, degrees",
    "mean_longitude": "decayed mean position, degrees",
    "cell": "H3 cells that acts are counted in, at most 8",
    "night": "acts at night in each of them; all are halved at 1000",
    "day": "acts at working hours in each of them",
    # cell_popularity
    "context_weight": "decayed engagement behind context_vector; half-life 6 hours, as of the row's time",
    "context_vector": "decayed, engagement-weighted sum of the vectors of the items acted on",
    "popular_item": "keys of at most 48 items, most popular first",
    "popular_score": "decayed engagement of each; too high by at most the whole engagement / 48",
    # item_statistics
    "shown": "slots in answers; like all counts here decayed with a half-life of 3 days, as of the row's time",
    "plays": "plays",
    "watched": "sum of the shares watched of plays of known length, each at most 2.5",
    "positives": "likes, shares, comments, follows, orders, check-ins ... and long views",
    "dislikes": "dislikes",
}
