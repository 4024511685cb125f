"""What a fold is told besides the state and the event. Nothing here changes within a record."""

from typing import NamedTuple

from feature_repo.folds.act import ItemLookup


class Record(NamedTuple):
    """The activity.v1 record that is being folded."""

    partition: int
    offset: int
    log_time_ms: int  # highest record timestamp of the partition so far, this record included
    recorded_ms: int  # the record's own timestamp


class FoldContext(NamedTuple):
    """Knowledge and settings; the same values give the same states."""

    items: ItemLookup
    tokenizer_version: int  # of the item vectors
    horizon_ms: int  # settings: streams.horizon_s
    location_resolution: int  # settings: streams.location_resolution
