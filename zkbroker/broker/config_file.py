"""Reading a broker's configuration: a YAML or properties file, environment variables, ``--override``.

What the settings mean is decided in ``model.config``; here is only where they come from, to the line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from zkbroker.model.config.broker import BrokerConfig, Setting
from zkbroker.model.config.build import build_broker_config
from zkbroker.model.config.table import BROKER_KEYS, closest
from zkbroker.model.config.values import BOOLEAN, printable
from zkbroker.model.errors import StartError

CONFIG_FILE_BYTES_MAX = 1 << 20
"""A configuration is a few KiB: a larger file is some other file, given by mistake."""

YAML_DEPTH_MAX = 8
"""A configuration needs three: the mapping, a list, its elements. More is read only to say what is wrong with it."""

ENVIRONMENT_PREFIX = "ZKBROKER_"

NOT_SETTINGS = ("CONF", "CONFIG", "HOME", "IMAGE", "LOG_LEVEL", "OPTS", "REACTOR", "VERSION")
"""What may follow the prefix without being a key: variables of the scripts, the image and the process."""

# Kubernetes gives every container of a namespace with a service called zkbroker ZKBROKER_PORT_9092_TCP and the like.
_SERVICE_VARIABLE = re.compile(r"PORT|PORT_[0-9]+_.*|SERVICE_.*")

_SCALAR_TAGS = ("str", "int", "float", "bool", "timestamp")


class _ShallowLoader(yaml.SafeLoader):
    """Refuses what a flat configuration never is, before PyYAML runs out of stack."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self._depth == YAML_DEPTH_MAX:
            mark = None if parent is None else parent.start_mark
            raise yaml.composer.ComposerError(None, None, "it is nested too deeply for a configuration", mark)
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def load_broker_config(
    path: str, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> BrokerConfig:
    """The configuration of a broker: the file's lines, then ``ZKBROKER_…`` variables, then ``key=value`` overrides.

    Raises StartError: one line that names the key and where it stands, for example
    ``conf/broker-1.yaml:12: unknown key 'log.dirz' (did you mean 'log.dirs'?)``.
    """
    try:
        settings = read_config_file(path)
        settings += environment_settings(environment or {})
        settings += override_settings(overrides)
        return build_broker_config(settings)
    except StartError as error:
        # Keys and values are shown as they were written, and may have been written over several lines.
        raise StartError(printable(str(error))) from error


def read_config_file(path: str) -> list[Setting]:
    """The settings of a file in their order: Java's format if its name ends in ``.properties``, else YAML."""
    try:
        with open(path, "rb") as file:
            data = file.read(CONFIG_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise StartError(f"{path}: cannot read the configuration: {error.strerror or error}") from error
    if len(data) > CONFIG_FILE_BYTES_MAX:
        raise StartError(f"{path}: more than {CONFIG_FILE_BYTES_MAX} bytes: this is not a configuration")
    is_properties = os.path.splitext(path)[1] == ".properties"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise StartError(f"{path}:{line}: this is not UTF-8 text") from error
    return parse_properties(text, path) if is_properties else parse_yaml(text, path)


def parse_yaml(text: str, path: str) -> list[Setting]:
    """The settings of a flat YAML mapping, each with its line. Raises StartError."""
    try:
        root = yaml.compose(text, Loader=_ShallowLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise StartError(
            f"{path}:{line}: this is not YAML: {error.problem or error.context or 'unreadable'}"
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise StartError(f"{path}:{line}: this is not YAML: {error.reason}") from error
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise StartError(f"{_place(path, root)}: expected lines of the form key: value")
    settings: list[Setting] = []
    lines: dict[str, int] = {}
    for key_node, value_node in root.value:
        name = key_node.value.strip() if isinstance(key_node, yaml.ScalarNode) else ""
        if not name:
            raise StartError(f"{_place(path, key_node)}: a key must be a plain text")
        _refuse_second(lines, name, key_node.start_mark.line + 1, path)
        settings.append(Setting(name, _yaml_text(name, value_node, path), _place(path, key_node)))
    return settings


def _place(path: str, node: Any) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _refuse_second(lines: dict[str, int], name: str, line: int, path: str) -> None:
    if name in lines:
        raise StartError(f"{path}:{line}: {name} is there twice, first in line {lines[name]}")
    lines[name] = line


def _yaml_text(name: str, node: Any, path: str) -> str:
    if isinstance(node, yaml.ScalarNode):
        return _scalar_text(name, node, path)
    if isinstance(node, yaml.MappingNode):
        inner = node.value[0][0].value if node.value and isinstance(node.value[0][0], yaml.ScalarNode) else "…"
        raise StartError(f"{_place(path, node)}: {name} is a mapping: keys are flat, for example {name}.{inner}")
    key = BROKER_KEYS.get(name)
    if key is not None and not key.takes_list:
        raise StartError(f"{_place(path, node)}: {name} takes one value, not a list")
    elements = []
    for element in node.value:
        if not isinstance(element, yaml.ScalarNode):
            raise StartError(f"{_place(path, element)}: {name} must be a flat list")
        text = _scalar_text(name, element, path)
        if "," in text:
            raise StartError(f"{_place(path, element)}: {name}: a list's element cannot have a comma: '{text}'")
        elements.append(text)
    return ",".join(elements)


def _scalar_text(name: str, node: Any, path: str) -> str:
    """The scalar as Kafka would write it: its own text, not YAML's value (010 stays 010, 12:30 is no number)."""
    tag = node.tag.removeprefix("tag:yaml.org,2002:")
    text = str(node.value)
    if tag == "null":
        raise StartError(f"{_place(path, node)}: {name} has no value (leave the line out for the default)")
    if tag not in _SCALAR_TAGS:
        raise StartError(f"{_place(path, node)}: {name} has a tag that is not known here: {node.tag}")
    key = BROKER_KEYS.get(name)
    if tag == "bool" and key is not None and key.type is BOOLEAN:
        return "true" if text.lower() in ("true", "yes", "on") else "false"
    if tag == "int":
        return text.replace("_", "")
    return text


def parse_properties(text: str, path: str) -> list[Setting]:
    """The settings of a Java properties file, each with the line it begins in. Raises StartError."""
    settings: list[Setting] = []
    lines: dict[str, int] = {}
    for number, line in _logical_lines(text):
        name, value = _split_property(line, f"{path}:{number}")
        _refuse_second(lines, name, number, path)
        settings.append(Setting(name, value, f"{path}:{number}"))
    return settings


def _logical_lines(text: str) -> Iterable[tuple[int, str]]:
    """(number of its first line, text) of each line that is no comment; one that ends in a backslash goes on."""
    pending = ""
    first = 0
    for number, raw in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        line = raw.lstrip(" \t\f")
        if not pending:
            if not line or line[0] in "#!":
                continue
            first = number
        pending += line
        backslashes = len(pending) - len(pending.rstrip("\\"))
        if backslashes % 2 == 1:
            pending = pending[:-1]
            if pending:
                continue
        if pending:
            yield first, pending
        pending = ""
    if pending:
        yield first, pending


_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CONTROL_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def _unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        escape = match.group(1)
        if len(escape) == 5:
            return chr(int(escape[1:], 16))
        return _CONTROL_ESCAPES.get(escape, escape)

    return _ESCAPE.sub(one, text)


def _split_property(line: str, place: str) -> tuple[str, str]:
    """The key ends at the first '=', ':' or blank without a backslash before it, as in Java."""
    match = re.match(r"((?:\\.|[^\\=:\s])*)[ \t\f]*[=:]?[ \t\f]*(.*)\Z", line, re.DOTALL)
    name, value = match.groups() if match is not None else ("", "")
    if not name:
        raise StartError(f"{place}: expected key=value")
    return _unescape(name), _unescape(value)


def environment_settings(environment: Mapping[str, str]) -> list[Setting]:
    """``ZKBROKER_LOG_DIRS`` → ``log.dirs``, by name. Raises StartError for a variable that names no key."""
    by_variable = {name.lower().replace(".", "_"): name for name in BROKER_KEYS}
    settings = []
    for variable in sorted(environment):
        rest = variable.removeprefix(ENVIRONMENT_PREFIX)
        if rest == variable or rest in NOT_SETTINGS or _SERVICE_VARIABLE.fullmatch(rest):
            continue
        name = by_variable.get(rest.lower())
        if name is None:
            dotted = rest.lower().replace("_", ".")
            raise StartError(f"{variable}: unknown key '{dotted}'{closest(dotted, BROKER_KEYS)}")
        settings.append(Setting(name, environment[variable], variable))
    return settings


def override_settings(overrides: Iterable[str]) -> list[Setting]:
    """``key=value`` texts of the command line, in their order. Raises StartError."""
    settings = []
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name.strip():
            raise StartError(f"--override {override}: expected key=value")
        settings.append(Setting(name.strip(), text, "--override"))
    return settings
