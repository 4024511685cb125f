"""Generated protobuf code: written beside each .proto, and proof that it is current.

`python -m infra.protos` writes `*_pb2.py` and `*_pb2.pyi` for every `protos/**/*.proto`, and `*_pb2_grpc.py` with its
`.pyi` for those that define a service. Everything is compiled from the repository root, so that the generated imports
(`from protos.events.v1 import interaction_pb2`) hold as they are written. Generated files without a .proto are removed.

`python -m infra.protos --check` changes nothing: it compiles into a temporary folder, names every file that is missing,
stale or left over, and ends with exit code 1 if there is one.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")
SERVICE = re.compile(r"^service\s+\w+", re.MULTILINE)


def compile_protos(root: Path, out: Path) -> None:
    """Compile `root/protos/**/*.proto` into `out/protos/**`.

    Raises SystemExit with protoc's exit code after protoc has printed what is wrong.
    """
    sources = sorted(path.relative_to(root) for path in root.glob("protos/**/*.proto"))
    services = [source for source in sources if SERVICE.search((root / source).read_text("utf-8"))]
    _protoc(root, ["python", "mypy"], sources, out)
    _protoc(root, ["grpc_python", "mypy_grpc"], services, out)


def generated_files(root: Path) -> list[Path]:
    """Paths of generated code under `root/protos`, relative to `root`, sorted."""
    return sorted(p.relative_to(root) for p in root.glob("protos/**/*_pb2*") if GENERATED.search(p.name))


def differences(root: Path, fresh: Path) -> dict[Path, str]:
    """What is wrong with each generated file under `root` that is not as in `fresh`, a newly compiled tree."""
    present, wanted = set(generated_files(root)), set(generated_files(fresh))
    stale = {path for path in present & wanted if (root / path).read_bytes() != (fresh / path).read_bytes()}
    return (
        dict.fromkeys(sorted(wanted - present), "is missing")
        | dict.fromkeys(sorted(stale), "differs from its .proto")
        | dict.fromkeys(sorted(present - wanted), "is left over: no .proto makes it")
    )


def install(root: Path, fresh: Path) -> None:
    """Make the generated code under `root` equal to `fresh`; files that already are equal keep their times."""
    for path in differences(root, fresh):
        if (fresh / path).exists():
            shutil.copyfile(fresh / path, root / path)
        else:
            (root / path).unlink()


def _protoc(root: Path, generators: list[str], sources: list[Path], out: Path) -> None:
    if not sources:
        return
    scripts = Path(sys.executable).parent  # the plugins of mypy-protobuf are installed beside the interpreter
    plugins = [f"--plugin=protoc-gen-{name}={scripts / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    includes = [f"-I{root}", f"-I{files('grpc_tools') / '_proto'}"]
    outputs = [f"--{name}_out={'quiet:' if name.startswith('mypy') else ''}{out}" for name in generators]
    compiler = [sys.executable, "-m", "grpc_tools.protoc", *includes, *plugins, *outputs]
    done = subprocess.run([*compiler, *(str(root / source) for source in sources)], timeout=120)
    if done.returncode:
        raise SystemExit(done.returncode)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.protos", description="Compile protos/**/*.proto")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if generated code is not current")
    check: bool = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        compile_protos(REPOSITORY, fresh)
        if not check:
            install(REPOSITORY, fresh)
        found = differences(REPOSITORY, fresh)
    for path, fault in found.items():
        print(f"{path} {fault}", file=sys.stderr)
    if found:
        print("generated protobuf code is not current; run: make protos", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
