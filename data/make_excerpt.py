"""The KuaiRand excerpt beside this file: what data/README.md lists, from a folder with KuaiRand-Pure in Parquet.

Exact repeats of a row are dropped; the statistics of videos, which look into the future, and everything about users
as persons are left out. Equal input gives equal bytes.

    python data/make_excerpt.py SOURCE_FOLDER
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEEDBACK = (  # bit i of `feedback`
    "is_click",
    "is_like",
    "is_follow",
    "is_comment",
    "is_forward",
    "is_hate",
    "long_view",
    "is_profile_enter",
)
VIDEO_TYPES = {
    "video_id": pa.int16(),
    "author_id": pa.int32(),
    "video_type": pa.string(),
    "upload_dt": pa.string(),
    "upload_type": pa.string(),
    "video_duration": pa.int32(),
    "music_id": pa.int64(),
    "tag": pa.string(),
}
DELTA = "DELTA_BINARY_PACKED"  # for numbers whose neighbours are close


def interactions(source: pa.Table) -> pa.Table:
    """One row per impression, by time; rows of one time stay in the order of the source."""
    rows = source.append_column("row", pa.array(np.arange(len(source))))
    first = rows.group_by(source.column_names).aggregate([("row", "min")])["row_min"].to_numpy()
    first = np.sort(first)
    kept = source.take(first[np.argsort(source["time_ms"].to_numpy()[first], kind="stable")])
    feedback = sum(kept[name].to_numpy().astype(np.uint8) << bit for bit, name in enumerate(FEEDBACK))
    return pa.table(
        {
            "user_id": kept["user_id"].cast(pa.int32()),
            "video_id": kept["video_id"].cast(pa.int16()),
            "time_ms": kept["time_ms"].cast(pa.int64()),
            "play_time_ms": kept["play_time_ms"].cast(pa.int32()),
            "duration_ms": kept["duration_ms"].cast(pa.int32()),
            "feedback": pa.array(feedback, pa.uint8()),
            "tab": kept["tab"].cast(pa.int8()),
        }
    )


def videos(source: pa.Table) -> pa.Table:
    """What is known of each video at its upload."""
    kept = source.sort_by("video_id")
    return pa.table({name: kept[name].cast(kind) for name, kind in VIDEO_TYPES.items()})


def history(source: pa.Table) -> pa.Table:
    """Each user's last items before the interactions begin, oldest first."""
    return source.sort_by("user_id")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the KuaiRand excerpt beside this file.")
    parser.add_argument("source", type=Path, help="folder with interactions, videos and history_before_20220425")
    source: Path = parser.parse_args().source
    here = Path(__file__).resolve().parent
    made = {
        "kuairand_interactions.parquet": (interactions, "interactions.parquet", ["time_ms"]),
        "kuairand_videos.parquet": (videos, "videos.parquet", ["video_id"]),
        "kuairand_history.parquet": (history, "history_before_20220425.parquet", ["user_id"]),
    }
    for name, (make, file, rising) in made.items():
        table = make(pq.read_table(source / file)).combine_chunks().replace_schema_metadata(None)
        flat = [column for column in table.column_names if column not in rising]
        pq.write_table(
            table,
            here / name,
            compression="zstd",
            compression_level=19,
            use_dictionary=flat,
            column_encoding=dict.fromkeys(rising, DELTA),
            write_statistics=False,
        )
        print(f"{name}: {len(table)} rows, {(here / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
