"""The reference of views and features in docs/features.md, written from the definitions.

python -m feature_repo.reference     # after a change of a view, a layout or a meaning
"""

from pathlib import Path
from typing import Final

from feast import FeatureView

from feature_repo import values
from feature_repo.layouts import LAYOUT_VERSION
from feature_repo.meanings import MEANINGS
from feature_repo.services import services
from feature_repo.values import View
from feature_repo.views import entities, views

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "features.md"
BEGIN: Final = "<!-- written by: python -m feature_repo.reference -->"
END: Final = "<!-- end of what is written -->"


def written(page: str) -> str:
    """The page with the reference of today between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}"


def reference() -> str:
    """Every view with its features, and every service, as Markdown."""
    sections = [_section(view) for view in views]
    sections += [
        f"### Service `{service.name}`\n\n{service.description}: "
        + ", ".join(f"`{projection.name}`" for projection in service.feature_view_projections)
        + ".\n"
        for service in services
    ]
    return f"Layout version {LAYOUT_VERSION}.\n\n" + "\n".join(sections)


def _section(table: FeatureView) -> str:
    view = values.VIEWS[table.name]
    (entity,) = (one for one in entities if one.name == table.entities[0])
    rows = "\n".join(f"| `{name}` | {_shape(view, name)} | {MEANINGS[name]} |" for name in view.fields)
    return (
        f"### `{table.name}`, by `{entity.join_key}`\n\n{table.description}. One row is {view.row.itemsize} bytes; "
        f"[{table.tags['fold']}](../{table.tags['fold']}).\n\n| feature | values | meaning |\n|---|---|---|\n{rows}\n"
    )


def _shape(view: View, name: str) -> str:
    field = view.fields[name]
    stored = view.row[field]
    kind = "float" if stored.base.kind == "f" else "int"
    if not stored.shape:
        return kind
    size = 1
    for length in stored.shape:
        size *= length
    return f"{'at most ' if field in view.lengths else ''}{size} {kind}s"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
