"""`nearfeed train semantic-ids` and `nearfeed tokenizer health`: build paths, and say how good they are."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.terminal import AsJson, configured, show_rows

if TYPE_CHECKING:
    from models.catalog import Catalog
    from models.tokenizer_health import Health

tokenizer_app = typer.Typer(no_args_is_help=True, help="Item vectors and semantic ids of published versions.")


def train_semantic_ids_command(
    size: Annotated[int, typer.Option(min=1, help="Codes of a level.")] = 64,
    levels: Annotated[int, typer.Option(min=1, help="Codes in a path.")] = 3,
    variant: Annotated[str, typer.Option(help="plain, or balanced: as many items in every cluster.")] = "plain",
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for catalogue and tokenizer.")] = Path("var/semantic-ids"),
    as_json: AsJson = False,
) -> None:
    """Vectors, codebook and one path per item of the KuaiRand excerpt, with the health report; nothing is published.

    Churn is told against the version that serves, if there is one. A build beyond the limits is shown and refused.

    Example: `nearfeed train semantic-ids --size 256 --variant balanced`
    """
    from models import kuairand
    from models.catalog_files import save_catalog
    from models.codebook_training import Variant
    from models.registry import current
    from models.tokenizer_health import require_health
    from models.train_semantic_ids import SemanticIdArgs, build_semantic_ids

    if variant not in list(Variant):
        raise typer.BadParameter(f"found {variant!r}, expected one of {', '.join(Variant)}", param_hint="--variant")
    home = configured("train").registry.home
    serving = current(home)
    previous = _catalog(home, serving) if serving is not None else None
    excerpt = kuairand.read_excerpt()
    args = SemanticIdArgs(
        version=1 + (previous.tokenizer.version if previous is not None else 0),
        levels=levels,
        codebook_size=size,
        variant=Variant(variant),
        seed=seed,
    )
    built = build_semantic_ids(
        kuairand.items(excerpt),
        kuairand.sequences(excerpt, kuairand.day_start_ms(kuairand.LIVE_DAY)),
        args,
        previous=previous,
    )
    _show_health(built.health, as_json, f"Semantic ids: {levels} levels of {size} codes, {variant}")
    require_health(built.health, args.limits)
    output.mkdir(parents=True, exist_ok=True)
    save_catalog(built.catalog, output)


@tokenizer_app.command("health")
def tokenizer_health(
    version: Annotated[int | None, typer.Argument(help="Which; the one that serves when left out.")] = None,
    against: Annotated[int | None, typer.Option(help="Version to tell the churn against; the one before.")] = None,
    as_json: AsJson = False,
) -> None:
    """The health report of a published version's semantic ids. Ends with 1 when a new build like it were refused.

    Example: `nearfeed tokenizer health 3 --against 1`
    """
    from models.registry import current, versions
    from models.tokenizer_health import HealthLimits, require_health
    from models.train_semantic_ids import catalog_health

    home = configured("tokenizer").registry.home
    version = current(home) if version is None else version
    earlier = [other for other in versions(home) if version is not None and other < version]
    against = earlier[-1] if against is None and earlier else against
    catalog = _catalog(home, version)
    health = catalog_health(catalog, None if against is None else _catalog(home, against))
    _show_health(health, as_json, f"Version {version}" + (f" against version {against}" if against else ""))
    require_health(health, HealthLimits())


def _catalog(home: Path, version: int | None) -> "Catalog":
    from models.catalog_files import load_catalog
    from models.registry import folder_of

    return load_catalog(folder_of(home, version))


def _show_health(health: "Health", as_json: bool, title: str) -> None:
    if as_json:
        print(json.dumps(health._asdict(), indent=2))
    else:
        show_rows([{"what": name, "found": value} for name, value in health.rows().items()], False, title)
