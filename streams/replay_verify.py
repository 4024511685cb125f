"""Two schemas, row by row: whether a replay gave what serves.

Both sides are read in order of their keys, a digest per row, so a table of any size is compared in constant memory.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import psycopg
from psycopg import sql

from feature_repo.postgres import named_errors
from streams.replay_tables import ANSWERS, CURSOR, FOLDED_TABLES

EXAMPLES: Final = 5  # keys that a report names

_ROWS: Final = 10_000  # fetched at once
_BYTE_ORDER: Final = '{} collate "C"'  # as Python compares text
_CURSOR_DIGEST: Final = "md5((to_jsonb(t) - array['epoch', 'outcomes', 'let_go'])::text)"
_NOT_DUE: Final = """due_at_ms > (
    select log_time_ms from stream_cursor c where (c.processor, c.topic_id, c.partition) = ({}, {}, t.partition))"""

Key: TypeAlias = tuple[Any, ...]
Row: TypeAlias = tuple[Key, str]  # key, digest


class Compared(NamedTuple):
    """One table on both sides."""

    table: str
    equal: int
    differing: int
    only_serving: int
    only_replay: int
    left_out: str  # what was not compared and why; empty = everything was
    examples: tuple[str, ...]  # keys of rows that are not equal, the first few

    @property
    def same(self) -> bool:
        return not (self.differing or self.only_serving or self.only_replay)


def compare(
    serving: psycopg.Connection[Any],
    replayed: psycopg.Connection[Any],
    *,
    processor: str,
    topic_id: str,
    scrubbed: Iterable[int],
) -> list[Compared]:
    """Every folded table, the two connections naming the two schemas, each in a transaction that sees one state.

    Left out are epochs, and answers whose time has come: a worker closes them after the commit that moved the time,
    so one side may have done it and the other not yet. Of the `scrubbed` partitions, where entries of forgotten
    users are missing in the archive, neither sums over users nor counters are compared.
    """
    without = sorted(set(scrubbed))
    compared = []
    for table in FOLDED_TABLES:
        key = _key_of(serving, table)
        over_users = table == CURSOR or "partition" in key
        parts: list[sql.Composable] = []
        if over_users and without:
            parts.append(sql.SQL("not partition = any({})").format(sql.Literal(without)))
        if table == CURSOR:
            parts.append(sql.SQL("(processor, topic_id) = ({}, {})").format(processor, topic_id))
        elif table == ANSWERS:
            parts.append(sql.SQL(_NOT_DUE).format(processor, topic_id))
        query = sql.SQL("select {key}, {digest} from {table} t where {condition} order by {order}").format(
            key=sql.SQL(", ").join(map(sql.Identifier, key)),
            digest=sql.SQL(_CURSOR_DIGEST if table == CURSOR else "md5(t::text)"),
            table=sql.Identifier(table),
            condition=sql.SQL(" and ").join(parts or [sql.SQL("true")]),
            order=sql.SQL(", ").join(
                sql.SQL(_BYTE_ORDER if kind == "text" else "{}").format(sql.Identifier(name))
                for name, kind in key.items()
            ),
        )
        numbers = ", ".join(map(str, without))
        left_out = f"partitions {numbers}: forgotten users are missing in the archive" if over_users and without else ""
        compared.append(_counted(table, _rows(serving, query), _rows(replayed, query), left_out))
    return compared


def differences(serving: Iterable[Row], replayed: Iterable[Row]) -> Iterator[tuple[Key, str]]:
    """For each key of either side, both ascending by key: equal, differing, only_serving or only_replay."""

    def of_side(side: int, rows: Iterable[Row]) -> Iterator[tuple[Key, int, str]]:
        return ((key, side, digest) for key, digest in rows)

    for key, found in groupby(merge(of_side(0, serving), of_side(1, replayed)), key=itemgetter(0)):
        by_side = {side: digest for _, side, digest in found}
        if len(by_side) == 2:
            yield key, "equal" if by_side[0] == by_side[1] else "differing"
        else:
            yield key, "only_serving" if 0 in by_side else "only_replay"


def _counted(table: str, serving: Iterable[Row], replayed: Iterable[Row], left_out: str) -> Compared:
    counts: Counter[str] = Counter()
    examples: list[str] = []
    for key, found in differences(serving, replayed):
        counts[found] += 1
        if found != "equal" and len(examples) < EXAMPLES:
            examples.append("/".join(map(str, key)))
    return Compared(
        table,
        counts["equal"],
        counts["differing"],
        counts["only_serving"],
        counts["only_replay"],
        left_out,
        tuple(examples),
    )


def _key_of(connection: psycopg.Connection[Any], table: str) -> dict[str, str]:
    """The columns of the primary key, in order, with their types."""
    query = """
select a.attname, format_type(a.atttypid, null) from pg_index i
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
where i.indrelid = %s::regclass and i.indisprimary order by array_position(i.indkey, a.attnum)"""
    with named_errors():
        return dict(connection.execute(query, (table,)).fetchall())


def _rows(connection: psycopg.Connection[Any], query: sql.Composed) -> Iterator[Row]:
    with named_errors(), connection.cursor(name="compared") as cursor:
        cursor.itersize = _ROWS
        cursor.execute(query)
        for row in cursor:
            yield row[:-1], row[-1]
