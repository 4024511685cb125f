"""`nearfeed train`, `learn` and `models`: versions, from the first one through every update to a rollback."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from core.settings import Settings
from infra.terminal import AsJson, configured, load_feast, show_rows

if TYPE_CHECKING:
    from rl.user_model import UserModel

train_app = typer.Typer(invoke_without_command=True)
models_app = typer.Typer(no_args_is_help=True, help="Published versions.")


@train_app.callback()
def train(
    context: typer.Context,
    seconds: Annotated[float, typer.Option(help="Limit for the generator's training.")] = 90.0,
    as_json: AsJson = False,
) -> None:
    """Train on the KuaiRand excerpt and publish: semantic ids, generator, user model, ONNX graph, golden batch.

    A version with a tokenizer of its own: what states keep of an older one begins anew, or is replayed.

    Example: `nearfeed train --seconds 20`
    """
    if context.invoked_subcommand is not None:
        return
    load_feast()
    from dataclasses import replace

    from rich.progress import Progress as Bars

    from infra.demo.kuairand import KuaiRand
    from infra.demo.training import train_first_version
    from models.registry import load_manifest
    from models.values import SelectionWeights
    from rl.announce import announce

    settings = configured("train")
    scenario = KuaiRand()
    arguments = replace(scenario.arguments(), generator=replace(scenario.arguments().generator, train_s=seconds))
    console = Console(stderr=True)
    with Bars(console=console) as bars:
        bar = bars.add_task("generator", total=1.0)
        first = train_first_version(
            scenario.recorded(),
            arguments,
            registry=settings.registry.home,
            streams=settings.streams,
            weights=SelectionWeights.of(settings.scorer),
            clock=settings.clock.clock(),
            say=lambda text: console.print(text, highlight=False),
            progress=lambda at: bars.update(bar, completed=at.done, description=f"generator, loss {at.loss:.3f}"),
        )
    announce(settings.kafka, load_manifest(settings.registry.home, first.version))
    rows = [{"metric": name, "value": value} for name, value in first.metrics.items()]
    show_rows(rows, as_json, f"Version {first.version} published in {settings.registry.home}")


def learn_command(
    verdict: Annotated[Path | None, typer.Option(help="Write what came of it to this file, as JSON.")] = None,
    city: Annotated[int | None, typer.Option(help="Judge by the people of the synthetic city of this seed.")] = None,
    as_json: AsJson = False,
) -> None:
    """One policy update on the outcomes since the serving version: update, gate, publication or refusal with reasons.

    Ends with 0 when the gate has spoken, whatever it said; a published version is swapped in by every scorer.
    """
    from models.registry import load_manifest
    from rl.announce import announce
    from rl.candidate import learn
    from rl.update import UpdateArguments

    settings = configured("learn")
    learned = learn(settings, UpdateArguments(), clock=settings.clock.clock(), users=_city_users(settings, city))
    if learned.version is not None:
        announce(settings.kafka, load_manifest(settings.registry.home, learned.version))
    said = {
        "version": learned.version,
        "reasons": learned.lines,
        "serving_reward": learned.judged.serving_reward,
        "candidate_reward": learned.judged.candidate_reward,
        "difference": learned.judged.difference,
        "update": learned.report._asdict(),
        "outcomes": learned.outcomes,
        "dropped": learned.dropped,
    }
    if verdict is not None:
        verdict.write_text(json.dumps(said), "utf-8")
    if as_json:
        print(json.dumps(said, indent=2))
    else:
        show_rows([{"what": line} for line in learned.lines], False, "Policy update")


def _city_users(settings: Settings, seed: int | None) -> "UserModel | None":
    if seed is None:
        return None
    from models.catalog_files import load_catalog
    from models.registry import current, folder_of
    from rl.city import CityConfig, make_city
    from rl.city_users import CityUsers

    home = settings.registry.home
    return CityUsers(make_city(CityConfig(seed=seed)), load_catalog(folder_of(home, current(home))))


@models_app.command("list")
def models_list(as_json: AsJson = False) -> None:
    """Every published version, and which one serves."""
    from models.registry import current, load_manifest, versions

    home = configured("models").registry.home
    serves = current(home)
    rows = []
    for version in versions(home):
        manifest = load_manifest(home, version)
        rows.append(
            {
                "version": version,
                "serves": version == serves,
                "parent": manifest.parent_version or "",
                "tokenizer": manifest.tokenizer_version,
                "made": manifest.created_at.ToJsonString(),
                "gate": "; ".join(check.reason for check in manifest.gate.checks),
            }
        )
    show_rows(rows, as_json, f"Versions in {home}")


@models_app.command("rollback")
def models_rollback(
    version: Annotated[int | None, typer.Argument(help="Which; the one before the current when left out.")] = None,
) -> None:
    """Let an earlier version serve again; scorers follow within registry.poll_ms."""
    from models.registry import rollback

    print(f"version {rollback(configured('models').registry.home, version)} serves")
