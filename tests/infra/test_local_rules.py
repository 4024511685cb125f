"""The rules of the embedded servers that need no server: configuration, ports, the lock of a home, the user."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from core.errors import InputError, NotReady
from infra.local import PORTS, LocalServers, free_ports, lock_home, servers_user
from infra.local_kafka import server_properties
from infra.local_postgres import ACCESS, server_settings

REPOSITORY = Path(__file__).resolve().parents[2]


def properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_one_kafka_node_needs_no_peers() -> None:
    found = properties(server_properties(20_001, 20_002, Path("/data")))
    assert {name: value for name, value in found.items() if name.endswith(("replication.factor", "min.isr"))} == {
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
    }
    assert found["group.initial.rebalance.delay.ms"] == "0"
    assert found["auto.create.topics.enable"] == "false"


def test_kafka_listens_on_loopback_only() -> None:
    found = properties(server_properties(20_001, 20_002, Path("/data")))
    assert found["listeners"] == "BROKER://127.0.0.1:20001,CONTROLLER://127.0.0.1:20002"
    assert found["advertised.listeners"] == "BROKER://127.0.0.1:20001"


def test_postgres_keeps_its_promises_on_durability_and_hides_from_the_network() -> None:
    found = server_settings(20_003)
    assert not {"fsync", "synchronous_commit", "full_page_writes"} & found.keys()
    assert found["listen_addresses"] == "127.0.0.1"
    assert found["unix_socket_directories"] == ""
    assert ACCESS.split() == ["host", "all", "nearfeed", "127.0.0.1/32", "scram-sha-256"]


def test_containers_run_the_same_kafka_with_the_same_rules() -> None:
    compose = yaml.safe_load((REPOSITORY / "infra/compose.yaml").read_text("utf-8"))["services"]["kafka"]
    pom = ElementTree.parse(REPOSITORY / "infra/kafka/pom.xml")
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    assert compose["image"].partition(":")[2] == pom.findtext("m:dependencies/m:dependency/m:version", None, space)
    own = properties(server_properties(9092, 9093, Path("/var/lib/kafka/data")))
    shared = {
        name: str(value)
        for variable, value in compose["environment"].items()
        if (name := variable.removeprefix("KAFKA_").lower().replace("_", ".")) in own
        and "listeners" not in name
        and "voters" not in name
    }
    assert shared == {name: own[name] for name in shared}
    assert len(shared) >= 15


def test_ports_are_different_free_and_outside_the_range_of_outgoing_connections() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(port in PORTS and port < max(first_outgoing, PORTS.stop) for port in ports)
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_a_port_that_is_taken_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_ports(1)[0]))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr("infra.local.PORTS", range(port, port + 1))
        with pytest.raises(NotReady, match="found no 1 free ports"):
            free_ports(1)


def test_a_home_has_one_run_and_names_the_other(tmp_path: Path) -> None:
    held = lock_home(tmp_path)
    with pytest.raises(NotReady, match=f"in use by process {os.getpid()}"):
        lock_home(tmp_path)
    os.close(held)
    os.close(lock_home(tmp_path))


def test_a_home_waits_for_the_servers_of_a_run_that_was_killed(tmp_path: Path) -> None:
    held = lock_home(tmp_path)
    leftover = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"], pass_fds=(held,))
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / "lock").write_text(f"{dead.pid}\n")
    os.close(held)
    os.close(lock_home(tmp_path))
    assert leftover.wait(0) == 0


def test_servers_of_an_ordinary_user_are_run_by_that_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert servers_user(tmp_path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_servers_of_root_are_never_run_by_root(tmp_path: Path) -> None:
    nobody = servers_user(tmp_path)
    assert nobody is not None and nobody.uid != 0
    os.chown(tmp_path, 1234, 1235)
    assert servers_user(tmp_path) == (1234, 1235)


def test_missing_jars_are_an_input_error_that_names_the_next_step(tmp_path: Path) -> None:
    servers = LocalServers(tmp_path / "home", jars=tmp_path / "none")
    with pytest.raises(InputError, match=r"found no Kafka jars in .*none; run: make setup"):
        servers.start()
    os.close(lock_home(tmp_path / "home"))


def test_a_missing_java_is_an_input_error_that_names_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"found no java in JAVA_HOME=.*; run: apt-get install openjdk-17"):
        LocalServers(tmp_path / "home", jars=tmp_path / "none").start()


def test_a_home_that_cannot_be_a_folder_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(InputError, match="File exists; expected a folder"):
        LocalServers(tmp_path / "home", jars=tmp_path / "none").start()
