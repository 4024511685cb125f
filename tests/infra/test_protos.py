"""Generated code is current, left over or missing: the check tells which, and writing repairs all three."""

from pathlib import Path

import pytest

from infra.protos import REPOSITORY, compile_protos, differences, generated_files, install

MESSAGE = 'syntax = "proto3";\npackage a.v1;\nmessage A { int64 at_ms = 1; }\n'
SERVICE = 'syntax = "proto3";\npackage a.v1;\nimport "protos/a/v1/a.proto";\nservice S { rpc Do(A) returns (A); }\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository of two .proto files, generated."""
    folder = tmp_path / "tree" / "protos" / "a" / "v1"
    folder.mkdir(parents=True)
    (folder / "a.proto").write_text(MESSAGE)
    (folder / "s.proto").write_text(SERVICE)
    compile_protos(tmp_path / "tree", tmp_path / "tree")
    return tmp_path / "tree"


def compiled(root: Path, out: Path) -> Path:
    out.mkdir()
    compile_protos(root, out)
    return out


def test_imports_are_written_from_the_root_and_only_services_get_stubs(tree: Path) -> None:
    assert [path.name for path in generated_files(tree)] == [
        "a_pb2.py",
        "a_pb2.pyi",
        "s_pb2.py",
        "s_pb2.pyi",
        "s_pb2_grpc.py",
        "s_pb2_grpc.pyi",
    ]
    assert "from protos.a.v1 import a_pb2" in (tree / "protos/a/v1/s_pb2.py").read_text()


def test_every_way_to_be_out_of_date_is_named_and_repaired(tree: Path, tmp_path: Path) -> None:
    here = Path("protos/a/v1")
    (tree / here / "a.proto").write_text(MESSAGE.replace("at_ms", "seen_ms"))
    (tree / here / "s_pb2_grpc.py").unlink()
    (tree / here / "old_pb2.py").touch()
    fresh = compiled(tree, tmp_path / "fresh")
    found = differences(tree, fresh)
    assert found == {
        here / "s_pb2_grpc.py": "is missing",
        here / "a_pb2.py": "differs from its .proto",
        here / "a_pb2.pyi": "differs from its .proto",
        here / "old_pb2.py": "is left over: no .proto makes it",
    }
    install(tree, fresh)
    assert differences(tree, fresh) == {}


def test_this_repository_is_current(tmp_path: Path) -> None:
    assert differences(REPOSITORY, compiled(REPOSITORY, tmp_path / "fresh")) == {}


def test_a_proto_that_does_not_compile_ends_the_run(tree: Path) -> None:
    (tree / "protos/a/v1/a.proto").write_text("message")
    with pytest.raises(SystemExit):
        compile_protos(tree, tree)
