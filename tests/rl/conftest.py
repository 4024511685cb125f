"""One served afternoon of a small city, shared by the tests of this room."""

import pytest

from tests.rl.loop import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("registry"))
