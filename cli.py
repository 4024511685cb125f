"""The command line: verbs in the order of the data.

    nearfeed topics apply · features apply · train · serve · stream · archive · replay · backfill · forget
    nearfeed ask · learn · models · bench · demo

Each verb reads the settings, builds the parts and runs them; the work is elsewhere. Imports stand inside
the verbs so that `--help` is quick and serving never loads the training framework.

Exit codes: 0 done, 1 the work failed, 2 asked wrongly.
"""

import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from core.errors import InputError, NearfeedError
from core.settings import DATA_HOME_VARIABLE, explain
from infra.log_commands import archive_command, backfill_command, forget_command, replay_command
from infra.terminal import AsJson, configured, load_feast
from infra.terminal import show_rows as _show
from infra.tokenizer_command import tokenizer_app, train_semantic_ids_command
from infra.version_commands import learn_command, models_app, train_app

app = typer.Typer(
    name="nearfeed",
    help="Nearfeed: streaming, real-time, generative recommendation.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
settings_app = typer.Typer(no_args_is_help=True, help="What this process would run with.")
topics_app = typer.Typer(no_args_is_help=True, help="Kafka topics.")
features_app = typer.Typer(no_args_is_help=True, help="Feast definitions and a user's features.")
rejects_app = typer.Typer(no_args_is_help=True, help="What could not be applied.")
serve_app = typer.Typer(no_args_is_help=True, help="The gRPC servers.")
bench_app = typer.Typer(no_args_is_help=True, help="Benchmarks; they stand in the repository only.")
app.add_typer(settings_app, name="settings")
app.add_typer(topics_app, name="topics")
app.add_typer(features_app, name="features")
app.add_typer(serve_app, name="serve")
app.add_typer(rejects_app, name="rejects")
app.add_typer(models_app, name="models")
app.add_typer(bench_app, name="bench")
app.add_typer(train_app, name="train")
app.add_typer(tokenizer_app, name="tokenizer")
train_app.command("semantic-ids")(train_semantic_ids_command)


def main() -> None:
    """Run the command line; a NearfeedError becomes one line and its exit code."""
    try:
        app()
    except NearfeedError as error:
        print(f"nearfeed: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


@settings_app.command("show")
def settings_show(as_json: AsJson = False) -> None:
    """Every setting, its value, and where it came from. Secrets are masked.

    Example: `NEARFEED_STREAMS__HORIZON_S=600 nearfeed settings show`
    """
    _show([value._asdict() for value in explain()], as_json, "Settings: environment over file over default")


@topics_app.command("apply")
def topics_apply(as_json: AsJson = False) -> None:
    """Make the topics that are missing; refuse a broker that disagrees about one."""
    from core.topics_admin import apply_topics

    _show([state._asdict() for state in apply_topics(configured("topics").kafka)], as_json, "Topics")


@features_app.command("apply")
def features_apply(as_json: AsJson = False) -> None:
    """Make the tables, and put the Feast definitions into the registry."""
    load_feast()
    from feature_repo.apply import apply_features

    applied = apply_features(configured("features"))
    rows = [{"kind": kind, "name": name} for kind, names in applied._asdict().items() for name in names]
    _show(rows, as_json, "Feature store")


@features_app.command("show")
def features_show(user_id: str, as_json: AsJson = False) -> None:
    """What is stored about one user, by view.

    Example: `nearfeed features show 12345`
    """
    from feature_repo.inspect import inspect_user

    views = inspect_user(configured("features"), user_id)
    if as_json:
        print(json.dumps(views, indent=2, default=str))
        return
    rows = [
        {"view": view, "feature": name, "value": _brief(value)}
        for view, part in views.items()
        for name, value in part.items()
    ]
    _show(rows, False, f"User {user_id}")


def _brief(value: Any) -> str:
    """A long vector by its first numbers; anything else whole."""
    if isinstance(value, list) and len(value) > 8 and isinstance(value[0], float):
        return f"[{', '.join(f'{number:.3f}' for number in value[:4])}, … {len(value)} numbers]"
    return str(value)


@app.command("stream")
def stream() -> None:
    """Run one stream worker: activity.v1 in, features and outcomes out. Start several to share the partitions.

    Ends with 0 on SIGTERM after committing what it holds; can be killed at any moment.
    """
    from streams.worker import run_worker

    raise SystemExit(run_worker(configured("stream")))


@serve_app.command("scorer")
def serve_scorer_command() -> None:
    """Answer RecommendService with the current model, and swap when a newer one is published."""
    from grpc_api.server import serve_scorer

    _serve(serve_scorer(configured("scorer")))


@serve_app.command("ingest")
def serve_ingest_command() -> None:
    """Take events (IngestService) and catalogue changes (CatalogService)."""
    from grpc_api.server import serve_ingest

    _serve(serve_ingest(configured("ingest")))


def _serve(server: Coroutine[Any, Any, None]) -> None:
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server)


@app.command("ask")
def ask(
    user_id: str,
    slate_size: Annotated[int, typer.Option(help="How many items; at most 50.")] = 5,
    latitude: Annotated[float | None, typer.Option(help="Where the user is, degrees.")] = None,
    longitude: Annotated[float | None, typer.Option(help="Where the user is, degrees.")] = None,
    logged: Annotated[bool, typer.Option("--log", help="Log an impression, as for a real request.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask the scorer for one user's slate. A look only, unless --log is given.

    Example: `nearfeed ask 12345 --slate-size 10`
    """
    import asyncio

    from google.protobuf.json_format import MessageToDict
    from grpc.aio import AioRpcError

    from grpc_api.client import Client
    from grpc_api.status import error_of
    from protos.events.v1.interaction_pb2 import Location
    from protos.scoring.v1.recommend_pb2 import RecommendRequest, RecommendResponse

    settings = configured("ask")
    if (latitude is None) != (longitude is None):
        raise InputError("found one coordinate, expected --latitude and --longitude together")
    request = RecommendRequest(user_id=user_id, slate_size=slate_size, preview=not logged)
    if latitude is not None and longitude is not None:
        request.location.CopyFrom(Location(latitude=latitude, longitude=longitude))

    async def answer() -> RecommendResponse:
        async with Client(settings.scorer.address) as client:
            return await client.recommend(request, deadline_s=1.0)

    try:
        response = asyncio.run(answer())
    except AioRpcError as error:
        raise error_of(error) from None
    if as_json:
        print(json.dumps(MessageToDict(response, preserving_proto_field_name=True), indent=2))
        return
    rows = [
        {
            "position": item.position,
            "item": item.item_id,
            "source": item.source,
            "log_prob": round(item.log_prob, 3),
            "codes": "-".join(map(str, item.codes)),
            "distance_m": round(item.distance_m) if item.HasField("distance_m") else "",
        }
        for item in response.items
    ]
    reasons = f", degraded: {', '.join(response.degraded_reasons)}" if response.degraded else ""
    _show(rows, False, f"User {user_id}, model version {response.model_version}{reasons}")


@rejects_app.command("list")
def rejects_list(
    limit: Annotated[int, typer.Option(help="At most this many, the newest.")] = 20, as_json: AsJson = False
) -> None:
    """The newest records of rejected.v1, each with where it stood and why."""
    from streams.rejects import list_rejects

    rows = [
        {
            "offset": listed.offset,
            "stood_at": f"{listed.rejected.topic}/{listed.rejected.partition}@{listed.rejected.offset}",
            "entry": "record" if listed.rejected.index < 0 else listed.rejected.index,
            "field": listed.rejected.field,
            "reason": listed.rejected.reason,
        }
        for listed in list_rejects(configured("rejects"), limit=limit)
    ]
    _show(rows, as_json, "rejected.v1")


@rejects_app.command("replay")
def rejects_replay(offsets: list[int], as_json: AsJson = False) -> None:
    """Send rejects back to activity.v1, stamped with the present; event ids make a second replay harmless.

    Example: `nearfeed rejects replay 3 4`
    """
    from streams.rejects import replay_rejects

    settings = configured("rejects")
    replayed = replay_rejects(settings, offsets, clock=settings.clock.clock())
    _show([one._asdict() for one in replayed], as_json, "Replayed")
    if any(one.refused for one in replayed):
        raise SystemExit(1)


app.command("archive")(archive_command)
app.command("replay")(replay_command)
app.command("backfill")(backfill_command)
app.command("forget")(forget_command)
app.command("learn")(learn_command)


@app.command("up")
def up(
    home: Annotated[Path, typer.Option(help="Where servers and logs live.")] = Path("var/up"),
    workers: Annotated[int, typer.Option(min=1, help="Stream workers.")] = 1,
) -> None:
    """Run the platform on this machine until Ctrl-C: servers, workers, archiver, ingest, and a scorer with a model."""
    load_feast()
    from infra.up import run_platform

    run_platform(configured("up"), home, jars=Path("var/kafka-jars"), workers=workers, say=print)


@app.command("demo")
def demo(home: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("var/demo")) -> None:
    """The whole loop on recorded short-video days, with real Kafka and PostgreSQL; writes report.html."""
    load_feast()
    from infra.demo.kuairand import KuaiRand
    from infra.demo.run import run_demo

    raise SystemExit(run_demo(KuaiRand(), home))


@app.command("demo-city")
def demo_city(
    home: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("var/demo-city"),
    seed: Annotated[int, typer.Option(help="Of the city and its people.")] = 0,
) -> None:
    """The same loop in a synthetic city of places, where the nearby changes with the user."""
    load_feast()
    from infra.demo.run import run_demo
    from infra.demo.town import Town

    raise SystemExit(run_demo(Town(seed), home))


@bench_app.command("quality")
def bench_quality_command(
    data: Annotated[list[str], typer.Option(help="Which question; may be repeated.")],
    model: Annotated[list[str], typer.Option(help="Which model; may be repeated.")],
    data_home: Annotated[Path, typer.Option(envvar=DATA_HOME_VARIABLE, help="The folder of data sets.")] = Path("data"),
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per model, where chance plays a part.")] = 3,
    home: Annotated[Path, typer.Option(help="Where runs are kept, by which a queue goes on.")] = Path(
        "var/bench/quality"
    ),
    baseline: Annotated[
        str | None, typer.Option(help="The model that gains are against; then rows are shown and not kept.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How good recommendations are: protocol × model × seeds, with intervals, beside the baselines.

    Rows go to benchmarks/results/quality.json as they come, a chart to the folder of runs. What has run is not run
    again.

    Example: `nearfeed bench quality --data beauty --model popularity --model mixture --data-home ../data`
    """
    from benchmarks.quality.command import bench_quality
    from benchmarks.quality.rows import table_of

    console = Console(stderr=True)
    rows = bench_quality(
        data,
        model,
        seeds=seeds,
        home=data_home,
        folder=home,
        baseline=baseline,
        say=lambda line: console.print(line, highlight=False, markup=False),
    )
    if as_json:
        print(json.dumps([row._asdict() for row in rows], indent=2))
    else:
        Console(width=None if sys.stdout.isatty() else 140).print(table_of(rows))


if __name__ == "__main__":
    main()
