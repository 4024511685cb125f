"""The error tree: drawing, classes, gRPC codes and exit codes agree."""

import inspect
import re

import grpc
import pytest

from core import errors
from core.errors import InputError, NearfeedError

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, NearfeedError)]
LINE = re.compile(r"^(?P<indent>[ │├└─]*)(?P<name>[A-Z]\w+)(?: {2,}(?P<text>\S.*))?$")


def drawn_tree() -> dict[str, tuple[str, str]]:
    """Name -> (parent, text) as drawn in the docstring of core/errors.py; four columns a level."""
    drawn: dict[str, tuple[str, str]] = {}
    path: list[str] = []
    drawing = (errors.__doc__ or "").split("\n\n")[1]
    for line in drawing.splitlines():
        found = LINE.match(line)
        assert found, f"not a line of the drawing: {line!r}"
        path = path[: len(found["indent"]) // 4 - 1]
        drawn[found["name"]] = (path[-1] if path else "Exception", found["text"] or "")
        path.append(found["name"])
    return drawn


def test_drawing_has_every_class_below_its_parent_and_no_other() -> None:
    assert {name: parent for name, (parent, _) in drawn_tree().items()} == {
        cls.__name__: cls.__base__.__name__ for cls in CLASSES if cls.__base__
    }


def test_drawing_says_what_the_class_says() -> None:
    for cls in CLASSES:
        text = drawn_tree()[cls.__name__][1]
        said = (cls.__doc__ or "").splitlines()[0]
        assert not text or said.rstrip(".").lower() == text.lower(), cls.__name__


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_names_a_failing_grpc_status_and_exit_code(cls: type[NearfeedError]) -> None:
    assert grpc.StatusCode[cls.grpc_status] is not grpc.StatusCode.OK
    assert cls.exit_code in (1, 2)


def test_exit_code_2_means_asked_wrongly() -> None:
    for cls in CLASSES:
        assert (cls.exit_code == 2) == issubclass(cls, InputError), cls.__name__
