"""``python -m zkbroker.cli._help MODULE --help``: a tool's help before its libraries are installed.

The scripts in bin/ use it where they would have to install first: whoever asks what a command does gets an answer and
no package. Only what ``setup.cfg`` requires has a stand-in, and only where it is missing; nothing of it works.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

LIBRARIES = frozenset({"twisted", "kazoo", "yaml", "kio", "crc32c", "cramjam", "confluent_kafka", "uvloop", "zope"})
# Of the tests' own tools.
LIBRARIES_OF_TESTS = frozenset({"pytest", "hypothesis", "kafka", "aiokafka"})


class _NamedMeta(type):
    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Named


class _Named(Exception, metaclass=_NamedMeta):
    """What stands for anything of a library: a base class, an exception, a decorator, a constant."""

    def __class_getitem__(cls, _item: object) -> type:
        return cls

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Named()

    def __getitem__(self, _key: object) -> object:
        return self

    def __call__(self, *arguments: object, **_named: object) -> object:
        return arguments[0] if arguments else self  # a decorator gives back what it was given


class _NamedModule(ModuleType):
    __path__: list[str] = []
    __version__ = "none"

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Named


class _StandIn(MetaPathFinder, Loader):
    """The last finder: it is asked only for what is not installed."""

    def find_spec(self, name: str, _path: object, _target: object = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in LIBRARIES | LIBRARIES_OF_TESTS:
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _NamedModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def main(argv: Sequence[str]) -> None:
    """Run the module as ``python -m`` would. Its arguments ask for help: it prints that and ends."""
    sys.meta_path.append(_StandIn())
    sys.argv = list(argv)
    runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
