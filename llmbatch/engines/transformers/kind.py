"""What the rest of llmbatch knows of the transformers engine."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from llmbatch.core.errors import JobError
from llmbatch.engines.base import Engine, EngineInfo
from llmbatch.engines.devices import VISIBLE, Machine, Place
from llmbatch.engines.kinds import (
    Around,
    Candidate,
    EngineKind,
    ModelFacts,
    NamedModel,
    Smaller,
    TokenizerSource,
    named_models,
    see_models,
)
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.transformers.settings import TransformersSettings, identity
from llmbatch.model.tokenizer import ChatSettings

_USUAL_SEQS = 64  # where nothing tells on what it will run
_LEAST_SEQS = 2


def _make(model: str, engine: EngineSettings, chat: ChatSettings, log: Path) -> Engine:
    """The engine, not yet started. Raises ``JobError`` where torch is not installed; as ``see_models``."""
    if find_spec("torch") is None:
        raise JobError(
            "the transformers engine needs torch, which is not installed: pip install 'llmbatch[transformers]'; "
            "--engine scripted rehearses a job without it"
        )
    if engine.lora and find_spec("peft") is None:
        raise JobError("engine.lora needs peft, which is not installed: pip install peft, or take the adapters out")
    see_models(_models(engine, model))
    from llmbatch.engines.transformers.engine import TransformersEngine

    return TransformersEngine(model, engine, chat, log)


def _smaller(settings: EngineSettings, info: EngineInfo | None) -> Smaller | None:
    """Half as many sequences at a time, and half of the cache where the job sets it."""
    args = dict(settings.args)
    seqs = int(args.get("max_num_seqs") or (info.max_num_seqs if info else _USUAL_SEQS))
    if seqs <= 1:
        return None
    args["max_num_seqs"] = seqs // 2
    for name in ("num_blocks", "max_batch_tokens"):
        if isinstance(size := args.get(name), int):
            args[name] = max(1, size // 2)
    return Smaller(settings.model_copy(update={"args": args}), f"max_num_seqs={seqs // 2}")


def _candidates(settings: EngineSettings, around: Around) -> list[Candidate]:
    """Twice and half of the batch size, where the job leaves it open."""
    if "max_num_seqs" in settings.args:
        return []
    sizes = (2 * around.info.max_num_seqs, around.info.max_num_seqs // 2)
    return [
        Candidate(f"max_num_seqs={size}", {"args": {**settings.args, "max_num_seqs": size}})
        for size in sizes
        if size >= _LEAST_SEQS
    ]


def _limits(settings: EngineSettings, model: ModelFacts) -> EngineInfo:
    args = settings.args
    return EngineInfo(
        name=settings.name,
        version="",
        model=model.model,
        context_length=args.get("max_model_len") or model.context_length,
        max_num_seqs=args.get("max_num_seqs") or _USUAL_SEQS,
        block_size=args.get("page_size"),
        max_num_batched_tokens=args.get("max_batch_tokens"),
        prefix_caching=args.get("batching") != "plain" and args.get("allow_block_sharing") is not False,
    )


def _places(settings: EngineSettings, machine: Machine) -> list[Place]:
    """A GPU for each of several engines, or where there is none a share of the processors. Raises ``JobError``."""
    engines = settings.engines
    what, named = (machine.gpus, "GPU") if machine.gpus else (machine.cpus, "processor")
    if engines > len(what):
        raise JobError(
            f"engine.replicas={engines}: each engine needs a {named} of its own, and there are {len(what)} ({machine.seen}): give "
            f"--replicas {len(what)}, or auto"
        )
    if machine.gpus:
        return [Place({VISIBLE: gpu}) for gpu in machine.gpus[:engines]]
    cpus = machine.cpus
    shares = [cpus[n * len(cpus) // engines : (n + 1) * len(cpus) // engines] for n in range(engines)]
    return [Place({"OMP_NUM_THREADS": str(len(share))}, share) for share in shares]


def _tokenizer(settings: EngineSettings) -> TokenizerSource:
    return TokenizerSource(settings.args.get("tokenizer"), settings.args.get("revision"))


def _models(settings: EngineSettings, model: str) -> list[NamedModel]:
    args = settings.args
    revision, folder = args.get("revision"), args.get("cache_dir")
    main, *adapters = named_models(settings, model)
    named = [main._replace(pin="engine.args.revision", revision=revision, folder=folder), *adapters]
    if isinstance(tokenizer := args.get("tokenizer"), str):
        pinned = args.get("tokenizer_revision") or revision
        named.append(NamedModel("engine.args.tokenizer", tokenizer, "engine.args.tokenizer_revision", pinned, folder))
    return named


KIND = EngineKind(
    make=_make,
    settings=TransformersSettings,
    identity=identity,
    smaller=_smaller,
    candidates=_candidates,
    devices=lambda _: 1,
    limits=_limits,
    hosted=True,
    places=_places,
    tokenizer=_tokenizer,
    models=_models,
    tells_thinking=lambda _: False,
    packages=("transformers", "torch"),
)
