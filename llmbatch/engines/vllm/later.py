"""Modules that vLLM's imports bring along and a batch never uses in; stand-ins, which become the modules once they are used, out.

transformers imports scikit-learn for one function of assisted generation, and with it pandas and scipy.stats; scipy.optimize for
one function of the losses of object detectors; accelerate for models that are spread over devices. vLLM imports scipy.signal for
audio, and boto3 for models in S3. Together that is a quarter of the imports of a start. A stand-in gives a name that is listed here
as a name which fetches the real thing when it is called or looked into. Any other name makes it import the module at once, as
without it: another version of who imports it starts as slowly as before, and no worse.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

LATER: Mapping[str, Sequence[str]] = {
    "sklearn": (),
    "sklearn.metrics": ("roc_curve",),
    "scipy": (),
    "scipy.optimize": ("linear_sum_assignment",),
    "scipy.signal": (),
    "boto3": (),
    "accelerate": ("PartialState", "dispatch_model"),
    "accelerate.hooks": ("AlignDevicesHook", "add_hook_to_module"),
    "accelerate.utils": (
        "extract_model_from_parallel",
        "get_balanced_memory",
        "get_max_memory",
        "infer_auto_device_map",
        "reduce",
    ),
    "accelerate.utils.modeling": ("clean_device_map", "get_max_layer_size"),
}
"""Module -> the names of it that are only called, or held against, later on."""


@contextmanager
def later(modules: Mapping[str, Sequence[str]] = LATER) -> Iterator[None]:
    """Meanwhile these modules are not imported but stood in for, where nothing of their package was imported before.

    At the end the stand-ins are taken out of ``sys.modules``: who imports such a module then gets the module itself. Who got a
    stand-in keeps it, and it works.
    """
    finder = _Finder(modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        finder.withdraw()


class _Finder(MetaPathFinder):
    """Finds stand-ins. ``modules`` must name the packages of its modules too."""

    def __init__(self, modules: Mapping[str, Sequence[str]]) -> None:
        self._modules = modules
        self._packages = {name for name in map(_package, modules) if name not in sys.modules}
        self._lock = threading.Lock()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package = _package(name)
        if package not in self._packages:
            return None
        if name not in self._modules:  # a part of the package of which nothing is known here: all of it is needed
            self.withdraw(package)
            importlib.import_module(package)
            # its import may have brought the part along
            return None if name not in sys.modules else ModuleSpec(name, _There(sys.modules[name]))
        if (found := PathFinder.find_spec(name, path, target)) is None:
            return None
        spec = ModuleSpec(name, _StandIns(self, self._modules[name]), origin=found.origin)
        spec.submodule_search_locations = found.submodule_search_locations
        return spec

    def withdraw(self, package: str | None = None) -> None:
        """Stand in no more for a package, or for any."""
        with self._lock:
            over = set(self._packages) if package is None else self._packages & {package}
            self._packages = self._packages - over
            for name, module in list(sys.modules.items()):
                if isinstance(module, _StandIn) and _package(name) in over:
                    del sys.modules[name]


class _StandIns(Loader):
    """Makes the stand-in of a module, of which these names can wait."""

    def __init__(self, finder: _Finder, names: Sequence[str]) -> None:
        self._finder = finder
        self._names = names

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name, self._finder, self._names)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is done: that is the point."""


class _There(Loader):
    """Gives a module that was imported meanwhile."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, _spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _StandIn(ModuleType):
    """Stands in for a module; ``names`` of it can wait."""

    def __init__(self, name: str, finder: _Finder, names: Sequence[str]) -> None:
        super().__init__(name)
        self._finder = finder
        self._names = names

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":  # asked by who looks at all modules there are
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return _Name(self, name) if name in self._names else getattr(self.itself(), name)

    def itself(self) -> ModuleType:
        """The module."""
        self._finder.withdraw(_package(self.__name__))
        return importlib.import_module(self.__name__)


class _Name:
    """A function or a class of a module that is not imported yet."""

    def __init__(self, module: _StandIn, name: str) -> None:
        self._module = module
        self._name = name

    def _real(self) -> Any:
        return getattr(self._module.itself(), self._name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._real()(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._real())

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self._real())

    def __mro_entries__(self, _bases: tuple[Any, ...]) -> tuple[Any, ...]:
        """A class that is derived from it is derived from the real one."""
        return (self._real(),)


def _package(module: str) -> str:
    return module.partition(".")[0]


__all__ = ["LATER", "later"]
