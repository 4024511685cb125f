"""`infra/prerequisites.sh` names all that is missing at once, with the command that installs it."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "infra" / "prerequisites.sh"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder for PATH on which everything is as it should be."""
    java = "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2"
    for name, body in {"python3.11": "", "java": java, "mvn": "", "make": "", "setpriv": ""}.items():
        install(tmp_path, name, body)
    (tmp_path / "sed").symlink_to(shutil.which("sed") or "/bin/sed")
    return tmp_path


def install(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def check(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(SCRIPT)], env={"PATH": str(path)}, capture_output=True, text=True, timeout=30, check=False
    )


def test_a_complete_machine_is_told_which_python_to_use(machine: Path) -> None:
    done = check(machine)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(machine / "python3.11"), "")


def test_an_empty_machine_gets_the_whole_list_at_once(tmp_path: Path) -> None:
    done = check(tmp_path)
    assert done.returncode == 1
    for what, command in {
        "python3.11 with venv": "apt-get install python3.11 python3.11-venv",
        "java 17 or newer": "apt-get install openjdk-17-jre-headless",
        "mvn": "apt-get install maven",
        "make": "apt-get install make",
        "setpriv with --pdeathsig": "apt-get install util-linux",
    }.items():
        assert [
            line.split() for line in done.stderr.splitlines() if line.split()[: len(what.split())] == what.split()
        ] == [[*what.split(), *command.split()]]


@pytest.mark.parametrize("version", ['"1.8.0_452"', '"11.0.27" 2025-04-15'])
def test_an_old_java_is_missing(machine: Path, version: str) -> None:
    install(machine, "java", f"echo 'openjdk version {version}' >&2")
    done = check(machine)
    assert done.returncode == 1
    assert "java 17 or newer (found 1" in done.stderr
    assert "maven" not in done.stderr


def test_a_python_without_venv_is_missing(machine: Path) -> None:
    install(machine, "python3.11", "exit 1")
    done = check(machine)
    assert done.returncode == 1
    assert "python3.11-venv" in done.stderr


def test_a_python3_of_the_right_version_will_do(machine: Path) -> None:
    install(machine, "python3.11", "exit 127")
    install(machine, "python3", "")
    assert check(machine).stdout.strip() == str(machine / "python3")
