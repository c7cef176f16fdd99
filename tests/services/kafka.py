"""A real Kafka broker for tests: one node (KRaft), on loopback, its jars fetched once by Maven.

librdkafka's mock cluster honours neither idempotence over a restart nor transactions nor topic
settings, so only a broker proves anything. `CACHE` may be set by PENSTOCK_KAFKA_CACHE; the jars are
44 MB. Beside its plain listener it can have one that clients are told to reach through another port
(for a proxy in between), and one with TLS and a login (SCRAM-SHA-512).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.ports import free_port
from tests.services.certificates import Certificates

VERSION = "4.3.1"
LOG4J = "2.25.4"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
CACHE = Path(
    os.environ.get("PENSTOCK_KAFKA_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "penstock" / "kafka"
)
READY_S = 180.0
USER, PASSWORD = "alarms", "a-secret-of-alarms"
GUARDED, GUARDED_PASSWORD = "guarded", "a-secret-of-guarded"
CLUSTER = "Kbq3Tf0oR2uZx5vWnY7hLg"  # any 16 bytes as base64url; always the same, so a folder is made once

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tests</groupId><artifactId>broker</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
<version>{VERSION}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
<version>{LOG4J}</version></dependency>
</dependencies></project>
"""

GUARD = f"""authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:{USER}
listener.name.guarded.sasl.enabled.mechanisms=PLAIN
listener.name.guarded.plain.sasl.jaas.config=\\
  org.apache.kafka.common.security.plain.PlainLoginModule required user_{GUARDED}="{GUARDED_PASSWORD}";
"""

LOGGING = """status = warn
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1}: %m%n
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
logger.ready.name = kafka.server.KafkaRaftServer
logger.ready.level = INFO
"""


def why_not() -> str | None:
    """What this machine lacks for a broker, or None."""
    lacking = [name for name in ("java", "mvn") if shutil.which(name) is None]
    return f"no {' and no '.join(lacking)} here" if lacking else None


def jars() -> Path:
    """The folder of the jars, fetched if they are not there; safe in several processes at once."""
    folder = CACHE / VERSION
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            (folder / "pom.xml").write_text(POM)
            subprocess.run(
                [
                    "mvn",
                    "-B",
                    "-q",
                    "-f",
                    str(folder / "pom.xml"),
                    f"{PLUGIN}:copy-dependencies",
                    "-DincludeScope=runtime",
                    f"-DoutputDirectory={folder / 'libs'}",
                ],
                check=True,
                capture_output=True,
                timeout=600,
            )
            (folder / "complete").touch()
    return folder / "libs"


class KafkaBroker:
    """A broker over a folder; it can be stopped, killed and started again on the same port.

    proxied: also serve `behind_port` to clients who are told to come by `proxy_port`.
    certificates: also serve `login_port` with TLS and the user USER.
    guarded: also serve `guarded_port` to the user GUARDED, by SASL PLAIN, who may do what access lists
    permit; all others may do everything.
    """

    java_options: Sequence[str] = ("-XX:TieredStopAtLevel=1",)  # half the CPU of a start, less at the peak

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        proxied: bool = False,
        certificates: Certificates | None = None,
        guarded: bool = False,
    ) -> None:
        self.folder = folder.resolve()
        self.libs = jars()
        self.port, self.controller_port, self.behind_port, self.proxy_port = (free_port() for _ in range(4))
        self.login_port, self.guarded_port = free_port(), free_port()
        self.port = port or self.port
        self.proxied = proxied
        self.certificates = certificates
        self.guarded = guarded
        self.process: subprocess.Popen[bytes] | None = None
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.properties").write_text(LOGGING)
        (self.folder / "server.properties").write_text(self._properties())
        login = ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"] if certificates else []
        options = ["-t", CLUSTER, "-c", self._config(), "--ignore-formatted", *login]
        self._java("kafka.tools.StorageTool", "format", *options).wait(READY_S)

    @property
    def address(self) -> str:
        """host:port"""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until it serves."""
        log = self.folder / "Kafka.log"
        log.write_bytes(b"")
        self.process = self._java("kafka.Kafka", self._config())
        until = time.monotonic() + READY_S
        while b"Kafka Server started" not in log.read_bytes():
            assert self.process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < until, "the broker is not ready"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _config(self) -> str:
        return str(self.folder / "server.properties")

    def _java(self, main: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{main.rpartition('.')[2]}.log").open("ab") as log:
            return subprocess.Popen(
                [
                    "java",
                    "-Xms64m",
                    "-Xmx384m",
                    "-XX:+UseSerialGC",
                    *self.java_options,
                    f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
                    f"-Djava.io.tmpdir={self.folder / 'tmp'}",
                    "-cp",
                    f"{self.libs}/*",
                    main,
                    *arguments,
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
            )

    def _properties(self) -> str:
        names = {"PLAINTEXT": (self.port, self.port, "PLAINTEXT")}
        if self.proxied:
            names["PROXIED"] = (self.behind_port, self.proxy_port, "PLAINTEXT")
        if self.certificates is not None:
            names["LOGIN"] = (self.login_port, self.login_port, "SASL_SSL")
        if self.guarded:
            names["GUARDED"] = (self.guarded_port, self.guarded_port, "SASL_PLAINTEXT")
        listeners = [f"{name}://127.0.0.1:{own}" for name, (own, _, _) in names.items()]
        advertised = [f"{name}://127.0.0.1:{told}" for name, (_, told, _) in names.items()]
        protocols = [f"{name}:{protocol}" for name, (_, _, protocol) in names.items()]
        return f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{self.controller_port}
listeners={",".join(listeners)},CONTROLLER://127.0.0.1:{self.controller_port}
advertised.listeners={",".join(advertised)}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map={",".join(protocols)},CONTROLLER:PLAINTEXT
log.dirs={self.folder / "data"}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
default.replication.factor=1
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2500
broker.heartbeat.interval.ms=500
log.segment.bytes=16777216
log.cleaner.dedupe.buffer.size=8388608
{self.certificates.properties() if self.certificates else ""}{GUARD if self.guarded else ""}"""
