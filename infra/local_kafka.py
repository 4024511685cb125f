"""Apache Kafka (KRaft, one node) as a child process, everything it writes below one folder."""

import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Final

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from core.errors import BrokerUnavailable, InputError
from infra.children import Child, Launcher

LOGGING: Final = (
    f"-Dlog4j2.configurationFile={(Path(__file__).parent / 'kafka' / 'log4j2.properties').as_uri()}",
    "-Dlog4j2.contextSelector=org.apache.logging.log4j.core.selector.BasicContextSelector",
)
MAX_MESSAGE_BYTES: Final = 8 << 20
FORMAT_TIMEOUT_S: Final = 60
STOP_GRACE_S: Final = 15


def server_properties(broker_port: int, controller_port: int, data: Path) -> str:
    """The broker's configuration: one node that needs no peers, sized for a machine of two cores."""
    values = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"BROKER://127.0.0.1:{broker_port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"BROKER://127.0.0.1:{broker_port}",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "BROKER",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": data,
        # A topic nobody declared is a typing mistake; core.topics declares ours.
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": 0,
        "message.max.bytes": MAX_MESSAGE_BYTES,
        # Kafka's own topics want three nodes by default, and more partitions than one node needs.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 4,
        # A broker that was killed is let in again when the session of its former life has run out; by default 9 s.
        "broker.heartbeat.interval.ms": 500,
        "broker.session.timeout.ms": 4000,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "log.cleaner.dedupe.buffer.size": 16 << 20,
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


class LocalKafka:
    """One broker: `start()` launches it, `wait_until_ready()` returns when it answers. Data survives every end."""

    def __init__(self, home: Path, jars: Path, launcher: Launcher, broker_port: int, controller_port: int) -> None:
        self.bootstrap = f"127.0.0.1:{broker_port}"
        self._home = home
        self._data = home / "data"
        self._formatted = home / "formatted"
        self._properties = home / "server.properties"
        self._ports = (broker_port, controller_port)
        self._jars = jars
        self._launcher = launcher
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def start(self) -> None:
        """The broker is launched on storage that is formatted once; it does not answer yet.

        Raises InputError when Java or the jars are missing, BrokerUnavailable when the storage cannot be formatted.
        """
        java = self._java()
        (self._home / "tmp").mkdir(parents=True, exist_ok=True)
        self._properties.write_text(server_properties(*self._ports, self._data), "utf-8")
        if not self._formatted.exists():
            self._format(java)
        self._child = self._launcher.start(
            [*java, "-Xms128m", "-Xmx512m", *LOGGING, "kafka.Kafka", str(self._properties)],
            folder=self._home,
            log=self._home / "server.log",
            env=os.environ,
            stop_signal=signal.SIGTERM,
            death_signal=signal.SIGKILL,
        )

    def wait_until_ready(self, deadline: float) -> None:
        """The broker answers a metadata request; BrokerUnavailable if not by `deadline` (on time.monotonic's scale)."""
        while not self._answers():
            self.check()
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"Kafka does not answer at {self.bootstrap} in time: {self._last_words()}")
            time.sleep(0.05)

    def check(self) -> None:
        """Raise BrokerUnavailable if the broker has ended without being asked to."""
        if self._child and self._child.exit_code is not None:
            raise BrokerUnavailable(f"Kafka ended with code {self._child.exit_code}: {self._last_words()}")

    def stop(self) -> None:
        if self._child:
            self._child.stop(STOP_GRACE_S)
        self._child = None

    def kill(self) -> None:
        if self._child:
            self._child.kill()
        self._child = None

    def _java(self) -> list[str]:
        """The command up to the main class. Nothing is written outside `home`: no performance data, no /tmp."""
        home = os.environ.get("JAVA_HOME")
        java = shutil.which(Path(home, "bin", "java") if home else "java")
        if not java:
            where = f"in JAVA_HOME={home}" if home else "on PATH"
            raise InputError(
                f"found no java {where}, expected 17 or newer; run: apt-get install openjdk-17-jre-headless"
            )
        if not any(self._jars.glob("kafka_2.13-*.jar")):
            raise InputError(f"found no Kafka jars in {self._jars}; run: make setup")
        flags = ["-XX:+UseSerialGC", "-XX:-UsePerfData", f"-Djava.io.tmpdir={self._home / 'tmp'}"]
        return [java, *flags, "-cp", f"{self._jars}/*"]

    def _format(self, java: list[str]) -> None:
        shutil.rmtree(self._data, ignore_errors=True)  # the rest of an interrupted attempt
        command = [*java, "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format"]
        command += ["--cluster-id", "nearfeed", "--config", str(self._properties)]
        fault = self._launcher.run(command, folder=self._home, env=os.environ, timeout_s=FORMAT_TIMEOUT_S)
        if fault:
            raise BrokerUnavailable(f"Kafka's storage in {self._data} could not be formatted: {fault}")
        self._formatted.touch()

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._ports[0]), timeout=1).close()
            admin = KafkaAdminClient(
                bootstrap_servers=self.bootstrap, request_timeout_ms=2000, bootstrap_timeout_ms=2000
            )
        except (OSError, KafkaError):
            return False
        try:
            return bool(admin.describe_cluster()["brokers"])
        except KafkaError:
            return False
        finally:
            admin.close()

    def _last_words(self) -> str:
        return self._child.last_words() if self._child else "it was not started"
