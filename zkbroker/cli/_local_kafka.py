"""Apache Kafka 3.9.1 brokers on this machine, started as LocalCluster starts zkbroker's: to compare with."""

from __future__ import annotations

import os
from pathlib import Path

from zkbroker.cli._local_cluster import LocalBroker

KAFKA_LOGGING = """\
log4j.rootLogger=INFO, CONSOLE
log4j.appender.CONSOLE=org.apache.log4j.ConsoleAppender
log4j.appender.CONSOLE.layout=org.apache.log4j.PatternLayout
log4j.appender.CONSOLE.layout.ConversionPattern=%d{ISO8601} %p %c{1} %m%n
log4j.appender.CONSOLE.target=System.err
"""


def kafka_class_path(log_level: str = "INFO", libs: str | None = None) -> str:
    """Class path with a log4j configuration of its own. KeyError when neither ``libs`` nor ZKBROKER_KAFKA_LIBS says
    where Kafka's jars are."""
    libs = libs or os.environ["ZKBROKER_KAFKA_LIBS"]
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"zkbroker-log4j-{os.getuid()}-{log_level}"
    folder.mkdir(exist_ok=True)
    (folder / "log4j.properties").write_text(KAFKA_LOGGING.replace("INFO", log_level))
    return f"{folder}:{libs}/*"


def kafka_start_command(broker: LocalBroker, libs: str | None = None) -> list[str]:
    """A small heap and the quick compiler only: short-lived brokers on a machine that they share."""
    properties = broker.directory / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in broker.settings.items()))
    options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    return ["java", *options, "-cp", kafka_class_path(libs=libs), "kafka.Kafka", str(properties)]
