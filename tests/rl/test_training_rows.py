"""What learning learns from is what Feast's offline store gives: one state of a user as of one moment."""

import numpy as np

from core.archive import ArchivedRecord
from feature_repo.layouts import USER, user_rows
from feature_repo.point_in_time import Asked, rows_at
from feature_repo.schema import USER_FEATURES
from rl.dataset import rollouts
from tests.rl.loop import PARTITIONS, World, row_bytes


def test_contexts_of_rollouts_are_historical_features(world: World) -> None:
    # No two records of a partition at one time: else a moment does not tell them apart.
    log, now_ms = [], [0] * PARTITIONS
    for record in world.log:
        now_ms[record.partition] = max(now_ms[record.partition] + 1, record.timestamp_ms)
        log.append(record._replace(timestamp_ms=now_ms[record.partition]))
    stamped = {(record.partition, record.offset): record.timestamp_ms for record in log}
    found = rollouts(
        world.outcomes,
        log,
        world.serving.catalog,
        world.context,
        world.table,
        partitions=PARTITIONS,
        max_positives=1,
    )
    features = {one.request_id: one.features for one in world.outcomes if one.HasField("features")}
    learned, asked = {}, {}
    for part in (found.batch, found.held_out):
        for place, request_id in enumerate(part.request_ids):
            learned[request_id] = row_bytes(part.viewers, place)
            reached = features.get(request_id)
            at_ms = 0 if reached is None else stamped[reached.partition, reached.offset]
            asked[request_id] = Asked(USER_FEATURES, part.user_ids[place], at_ms)
    archived = [ArchivedRecord(*record[1:]) for record in log]
    past = rows_at(
        set(asked.values()),
        lambda partition: (record for record in archived if record.partition == partition),
        PARTITIONS,
        world.context,
    )
    assert {request_id: row_bytes(user_rows(past[one]), 0) for request_id, one in asked.items()} == learned
    assert len(learned) > 50 and any(one.at_ms for one in asked.values())
    assert sum(past[one].tobytes() != np.zeros(1, USER).tobytes() for one in asked.values()) > 20
