"""A request in; its token ids as bytes, and the digest that it shares with the requests sure to get its answer, out.

And of texts that are part of what a job is: a short digest.
"""

from __future__ import annotations

import json
from array import array
from hashlib import blake2b, sha1, sha256
from uuid import NAMESPACE_OID

from llmbatch.core.demand import Demand, Demands
from llmbatch.core.messages import with_urls
from llmbatch.core.types import Constraint, Request, Sampling

DIGEST_BYTES = 16
TOKEN_BYTES = array("I").itemsize
_IMAGE_TOKENS = 32 // TOKEN_BYTES  # that a digest of an image is as long as


def short_digest(content: str | bytes) -> str:
    """A digest that a person can compare by eye: 16 hexadecimal digits."""
    return sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]


def uuid_of(name: str) -> str:
    """``str(uuid.uuid5(uuid.NAMESPACE_OID, name))``, put together from the digest: objects of ``UUID`` take five times as long."""
    digest = sha1(NAMESPACE_OID.bytes + name.encode(), usedforsecurity=False).hexdigest()
    variant = f"{int(digest[16], 16) & 3 | 8:x}"
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


def pack(request: Request) -> bytes | None:
    """The token ids that the engine gets, prompt and partial answer or target, as fixed-width bytes; None if not tokenized.

    Equal bytes are equal ids, and bytes that share a prefix of whole tokens share these tokens. The digests of images stand before
    the ids: where they differ, nothing counts as shared, though the text before the first image may be.
    """
    if request.token_ids is None:
        return None
    ids = request.token_ids
    packed = (ids if isinstance(ids, array) and ids.typecode == "I" else array("I", ids)).tobytes()
    if request.prompt.images:
        packed = b"".join(bytes.fromhex(image.sha256) for image in request.prompt.images) + packed
    if request.partial or request.target_ids:
        return packed + array("I", (*request.partial, *request.target_ids)).tobytes()
    return packed


def token_count(request: Request, packed: bytes) -> int:
    """How many tokens there are in what ``pack`` made of a request; none in nothing."""
    images = len(request.prompt.images) * _IMAGE_TOKENS if packed else 0
    return len(packed) // TOKEN_BYTES - images


class Digests:
    """Digests requests such that two that are sure to get the same answer have the same digest, and no others.

    A digest has 16 bytes and does not depend on the process, the window or the row, so it can also key a memory of
    answers over windows or runs of one model. Requests whose answer is drawn at random, without a seed, have none.
    Make one for each window: it keeps the settings that it has read.
    """

    def __init__(self, demands: Demands | None = None) -> None:
        self._demands = demands or Demands()
        self._settings: dict[tuple[int, int], tuple[Sampling, Constraint | None, bytes]] = {}

    def digest(self, request: Request, packed: bytes | None, demand: Demand | None = None) -> bytes | None:
        """The digest of a request with these packed tokens (``pack``); None if its answer may differ at every time.

        Without tokens, which for some engines only a server knows, the prompt itself is digested. ``demand`` is what the request
        asks for, where that was read already.
        """
        if not (self._demands.of(request) if demand is None else demand).repeats:
            return None
        # By identity, because requests share these objects; equal ones that are not shared have the same text.
        identity = (id(request.sampling), id(request.constraint))
        known = self._settings.get(identity)
        if known is None:
            key = _digest(repr((request.sampling.values, request.constraint)))
            known = self._settings[identity] = (request.sampling, request.constraint, key)
        own: tuple[object, ...] = (
            request.seed, request.max_tokens, request.lora, request.prompt.prefill, len(request.partial),
        )  # fmt: skip
        if request.target is not None:
            own = (*own, request.target, len(request.target_ids))
        if (pooling := request.pooling) is not None:
            own = (*own, pooling.task, pooling.dimensions, pooling.activation, len(request.target_ids))
        if (tools := request.prompt.tools) is not None:
            # what the answer is read by, also where the template leaves them out; in their order, in which a model is shown them
            own = (*own, json.dumps([tools.offered, tools.choice, tools.name, tools.parallel]))
        key = known[2] if own == _NOTHING_OWN else blake2b(_digest(repr(own)), digest_size=32, key=known[2]).digest()
        if packed is None:
            return blake2b(_canonical(request), digest_size=DIGEST_BYTES, key=key, person=b"prompt").digest()
        return blake2b(packed, digest_size=DIGEST_BYTES, key=key).digest()


_NOTHING_OWN = (None, None, None, "", 0)


def _canonical(request: Request) -> bytes:
    """Prompt and partial answer as bytes, the same for equal ones whatever the order of a message's keys."""
    prompt = request.prompt
    messages = prompt.messages
    if prompt.images and messages is not None:
        messages = with_urls(messages, {image.url: image.sha256 for image in prompt.images})
    said = [messages, prompt.text, request.partial, *([] if prompt.pair is None else [prompt.pair])]
    return json.dumps(said, sort_keys=True, separators=(",", ":"), default=str).encode()


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest()
