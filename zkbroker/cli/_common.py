"""What the command-line tools share: exit status, one-line errors, client properties."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import confluent_kafka.admin
from confluent_kafka import KafkaError, KafkaException

from zkbroker.model.errors import ErrorCode

DEFAULT_TIMEOUT_S = 30.0
kafka_admin: Any = confluent_kafka.admin
"""The library's admin classes; it does not type them, so they are used without types."""


class CommandError(Exception):
    """The command cannot do what was asked; the text is the one line that the user sees. Exit status 1."""


class UsageError(Exception):
    """The flags make no sense together. Exit status 2."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line and where to read more, not the whole usage text: it would hide the line."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def make_parser(prog: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser whose --help ends with examples. Flags are never abbreviated: Kafka's are not either."""
    return _Parser(
        prog=prog,
        description=description,
        epilog="examples:\n" + examples.rstrip("\n"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_bootstrap(parser: argparse.ArgumentParser, *aliases: str) -> None:
    parser.add_argument(
        "--bootstrap-server",
        *aliases,
        dest="bootstrap_server",
        metavar="HOST:PORT[,HOST:PORT...]",
        required=True,
        help="one or more brokers to ask first; the others are learned from them",
    )


def run(prog: str, body: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser, argv: Any) -> int:
    """Parse, run, and turn every expected failure into one line on stderr and an exit status.

    0 done, 1 the command failed, 2 wrong usage, 130 Ctrl-C. A closed pipe at stdout ends quietly with 0, as for `head`.
    """
    try:
        try:
            _check_encoding(sys.argv[1:] if argv is None else argv)
            arguments = parser.parse_args(argv)
            status = body(arguments)
            sys.stdout.flush()
            return status
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 1
        except UsageError as error:
            return complain(f"{prog}: {error} (see --help)", 2)
        except CommandError as error:
            return complain(str(error), 1)
        except KafkaException as error:
            return complain(f"{prog}: {kafka_error_text(error)}", 1)
        except BrokenPipeError:
            raise
        except OSError as error:
            return complain(f"{prog}: {error}", 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has what it wanted. Point stdout elsewhere so that the flush at exit is not one more error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _check_encoding(argv: Sequence[str]) -> None:
    """The client library ends the process for a name that is not UTF-8. Raises UsageError."""
    for argument in argv:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{os.fsencode(argument)!r} is not UTF-8") from None


def complain(line: str, status: int) -> int:
    print(" ".join(line.split()), file=sys.stderr)
    return status


def kafka_error_text(error: BaseException) -> str:
    """The broker's or the library's message without the library's wrapping."""
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        found = error.args[0]
        if found.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT):
            return f"no broker answered ({found.str()})"
        return str(found.str()) or str(found.name())
    return str(error)


# Where Java's class is not called as the error is.
_JAVA_CLASSES = {
    ErrorCode.REQUEST_TIMED_OUT: "TimeoutException",
    ErrorCode.MESSAGE_TOO_LARGE: "RecordTooLargeException",
    ErrorCode.CORRUPT_MESSAGE: "CorruptRecordException",
    ErrorCode.TOPIC_ALREADY_EXISTS: "TopicExistsException",
}


def java_class(code: ErrorCode) -> str:
    """The exception that a Java client throws for an error, with its package: scripts look for it."""
    words = code.name.removesuffix("_ERROR").removesuffix("_EXCEPTION").split("_")
    name = _JAVA_CLASSES.get(code) or "".join(word.capitalize() for word in words) + "Exception"
    return f"org.apache.kafka.common.errors.{name}"


def key_values(items: Iterable[str], flag: str) -> dict[str, str]:
    """``["a=1", …]`` as a dict. Raises UsageError for an item without "="; what follows the first "=" is the value."""
    result = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError(f"{flag} wants name=value, not {item!r}")
        result[name.strip()] = value
    return result


def read_properties(path: str | None) -> dict[str, str]:
    """A Java properties file, as Kafka's tools take with --command-config and its like. Raises CommandError."""
    if path is None:
        return {}
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from None
    result = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line[0] in "#!":
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise CommandError(f"{path} line {number}: no '=' in {line!r}")
        result[name.strip()] = value.strip()
    return result


# What Java's clients call otherwise than librdkafka; None: has no counterpart and changes nothing that counts.
_JAVA_NAMES: dict[str, str | None] = {
    "key.serializer": None,
    "value.serializer": None,
    "key.deserializer": None,
    "value.deserializer": None,
    "max.block.ms": None,
    "buffer.memory": None,
    "max.request.size": "message.max.bytes",
    "fetch.max.wait.ms": "fetch.wait.max.ms",
    "metadata.max.age.ms": "topic.metadata.refresh.interval.ms",
}


def client_config(bootstrap_server: str, *layers: Mapping[str, str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """librdkafka's configuration: our defaults, then each layer of the user's properties in either client's names."""
    config: dict[str, Any] = {
        "bootstrap.servers": bootstrap_server,
        "log_level": 0,
        "error_cb": _ignore_client_error,
        **defaults,
    }
    for layer in layers:
        for name, value in layer.items():
            translated = _JAVA_NAMES.get(name, name)
            if translated is not None:
                config[translated] = value
    return config


def _ignore_client_error(error: object) -> None:
    """librdkafka's own complaints on stderr say the same once per broker; the command's own line is enough."""


def is_true(properties: Mapping[str, str], name: str, default: bool = False) -> bool:
    """A property of Kafka's formatters and readers: anything but "true" is false."""
    return properties.get(name, str(default)).strip().lower() == "true"


def separator(properties: Mapping[str, str], name: str, default: str) -> bytes:
    """What stands between the parts of a record; a tab or a new line may be written \\t and \\n."""
    return properties.get(name, default).replace("\\t", "\t").replace("\\n", "\n").encode()


def positive(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return number


def raise_on_signals(numbers: Sequence[signal.Signals] = (signal.SIGTERM,)) -> None:
    """Let SIGTERM end a tool as Ctrl-C does: with its last flush."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, stop)
