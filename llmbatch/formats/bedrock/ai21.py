"""AI21's text bodies, both ways. Of its answers only the text is known to be as the service has it."""

from __future__ import annotations

from llmbatch.formats.bedrock.base import Reply, prompt_family

_SAMPLING = {"maxTokens": "max_tokens", "temperature": "temperature", "topP": "top_p", "stopSequences": "stop"}
_NEUTRAL = {
    "numResults": (1,),
    **{name: ({"scale": 0},) for name in ("countPenalty", "presencePenalty", "frequencyPenalty")},
}


def _write(reply: Reply) -> dict[str, object]:
    reason = reply.reason("length", "endoftext")
    return {"completions": [{"data": {"text": reply.text}, "finishReason": {"reason": reason}}]}


AI21 = prompt_family(_SAMPLING, _write, _NEUTRAL)
