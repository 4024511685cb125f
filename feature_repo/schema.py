"""The tables of the platform in PostgreSQL: features, and what the stream workers and scorers keep beside.

Everything is created where it is missing and left alone where it is; several processes may do so at
once. Names are unqualified: the `search_path` of the connection decides the schema. A changed table is
a new name and a replay of the log, never an ALTER.
"""

from typing import Final

import psycopg

USER_FEATURES: Final = "user_features"  # the table behind the four views of a user
USER_INTERESTS: Final = "user_interests"
USER_HISTORY: Final = "user_history"
USER_WATCH: Final = "user_watch"
USER_PLACES: Final = "user_places"
CELL_POPULARITY: Final = "cell_popularity"
ITEM_STATISTICS: Final = "item_statistics"

# CREATE ... IF NOT EXISTS races with itself in PostgreSQL; this lock makes one creator go first.
_LOCK: Final = 0x6E656172  # "near"

# Partial sums: things that users of every partition act on.
_SUMS: Final = """
create table if not exists {table} (
    entity_key text not null,
    partition integer not null,
    event_time timestamptz not null,
    layout_version smallint not null,
    value bytea not null,
    primary key (entity_key, partition)
)"""

STATEMENTS: Final = (
    # Room on the page for the row's next version: an update then touches no index. Plain: never compressed, never
    # out of line.
    f"""
create table if not exists {USER_FEATURES} (
    entity_key text primary key,
    event_time timestamptz not null,
    layout_version smallint not null,
    tokenizer_version integer not null,
    value bytea storage plain not null
) with (fillfactor = 50)""",
    *(_SUMS.format(table=table) for table in (CELL_POPULARITY, ITEM_STATISTICS)),
    """
create table if not exists user_attribution (
    user_id text not null,
    request_id text not null,
    partition integer not null,
    due_at_ms bigint not null,
    value bytea not null,
    primary key (user_id, request_id)
)""",
    "create index if not exists user_attribution_due on user_attribution (partition, due_at_ms)",
    """
create table if not exists stream_cursor (
    processor text not null,
    topic text not null,
    topic_id text not null,
    partition integer not null,
    epoch bigint not null default 0,
    next_offset bigint not null default 0,
    log_time_ms bigint not null default 0,
    records bigint not null default 0,
    applied bigint not null default 0,
    duplicates bigint not null default 0,
    rejected bigint not null default 0,
    impressions bigint not null default 0,
    outcomes bigint not null default 0,
    let_go bigint not null default 0,
    late bigint not null default 0,
    forgotten bigint not null default 0,
    primary key (processor, topic_id, partition)
)""",
    """
create table if not exists stream_outbox (
    id bigint generated always as identity primary key,
    processor text not null,
    source_partition integer not null,
    topic text not null,
    partition integer not null,
    key bytea,
    value bytea not null,
    timestamp_ms bigint not null
)""",
    "create index if not exists stream_outbox_source on stream_outbox (processor, source_partition, id)",
    """
create table if not exists scorer_lease (
    scorer_id text primary key,
    catalog_offset bigint not null,
    model_version integer not null,
    expires_at timestamptz not null
)""",
)

TABLES: Final = (
    USER_FEATURES,
    CELL_POPULARITY,
    ITEM_STATISTICS,
    "user_attribution",
    "stream_cursor",
    "stream_outbox",
    "scorer_lease",
)


def create(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Afterwards every table exists. Commits nothing itself: the caller's transaction holds the lock."""
    connection.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
    for statement in STATEMENTS:
        connection.execute(statement.encode())
