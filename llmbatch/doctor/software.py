"""What is installed of llmbatch, Python and the libraries, and which extras are not."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from llmbatch import __version__
from llmbatch.core.versions import versions
from llmbatch.doctor.base import Finding
from llmbatch.engines import ENGINES
from llmbatch.engines.kinds import kind_of

_OF_TORCH = ("torchvision", "torchaudio", "torchcodec")
_LEFT_OUT = frozenset({"dev", "docs"})  # of whoever works on llmbatch
Version = Callable[[str], str | None]


def software() -> Iterator[Finding]:
    found = versions()
    yield Finding("llmbatch", "ok", f"{__version__} in {Path(__file__).parents[1]}")
    yield Finding(
        "python",
        "ok",
        f"{found['python']}, {sys.executable}, on {platform.platform(terse=True)} ({platform.machine()})",
    )
    libraries = [f"{name} {version}" for name, version in found.items() if name not in ("llmbatch", "python")]
    yield Finding("libraries", "ok", ", ".join(libraries) or "none")


def version_of(package: str) -> str | None:
    """The version that is installed; nothing is imported for it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def builds(version: Version = version_of) -> Iterator[Finding]:
    """Whether torch and its companions are of one build: beside one for CPUs, each that is not fails where it is imported."""
    torch = version("torch") or ""
    others = [f"{name} {found}" for name in _OF_TORCH if (found := version(name)) and "+cpu" not in found]
    if torch.endswith("+cpu") and others:
        yield Finding(
            "torch",
            "wrong",
            f"{torch} is a build for the CPU, and {', '.join(others)} not: importing vLLM or transformers' models fails",
            f"pip uninstall {' '.join(_OF_TORCH)}; a model of text alone needs none of them",
        )
    else:
        yield Finding(
            "torch", "ok" if torch else "note", torch or "not there: vLLM and transformers' models bring it along"
        )


def extras(requires: Sequence[str] | None = None, version: Version = version_of) -> Iterator[Finding]:
    """Each extra, and what is missing of it. ``requires``: the package's requirements, by default as installed."""
    try:
        known = [Requirement(text) for text in (metadata.requires("llmbatch") if requires is None else requires) or ()]
    except metadata.PackageNotFoundError:  # run from a checkout
        yield Finding(
            "extras", "note", "llmbatch is not installed as a package, so its extras are not known", "pip install -e ."
        )
        return
    names = dict.fromkeys(extra for each in known if (extra := _extra_of(each)) is not None)
    for name in names:
        needed = [each for each in known if _extra_of(each) == name]
        if name in _LEFT_OUT or _in_its_place(needed, version) or any(each.name == "llmbatch" for each in needed):
            continue
        missing = [problem for each in needed if (problem := _problem(each, version)) is not None]
        if missing:
            advice = "see docs/install.md" if name == "cpu" else f"pip install 'llmbatch[{name}]'"
            yield Finding(f"extra {name}", "note", f"not there: {', '.join(missing)}", advice)
        else:
            yield Finding(f"extra {name}", "ok", ", ".join(f"{each.name} {version(each.name)}" for each in needed))


def _extra_of(requirement: Requirement) -> str | None:
    """The extra that a requirement is of."""
    marker = "" if requirement.marker is None else str(requirement.marker)
    _, found, rest = marker.partition("extra == ")
    return rest.strip().strip("\"'() ") if found else None


def _in_its_place(needed: Sequence[Requirement], version: Version) -> bool:
    """Whether the extra is an engine's, of which another build is installed."""
    names = {each.name for each in needed}
    for engine in ENGINES:
        packages = set(kind_of(engine).packages)
        if names < packages and any(version(package) is not None for package in packages - names):
            return True
    return False


def _problem(requirement: Requirement, version: Version) -> str | None:
    found = version(requirement.name)
    if found is None:
        return requirement.name
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{requirement.name} {requirement.specifier} (there is {found})"
    return None
