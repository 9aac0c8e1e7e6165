"""A job's engine section in; what of it is for a server with OpenAI's API, checked, out."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from llmbatch.core.errors import JobError
from llmbatch.core.sampling import SAMPLING
from llmbatch.core.settings import Counts, IsPath, is_named_as_path, is_there
from llmbatch.engines.http.settings import HttpSettings

DialectName = Literal["auto", "vllm", "sglang", "llamacpp", "openai", "other"]

# fields of a request that have a place of their own in a job
_OURS = {
    "model": "model, or engine.served_name",
    "messages": "prompt",
    "prompt": "prompt",
    "input": "prompt",
    "dimensions": "program.settings.dimensions",
    "embed_dtype": "vectors are of 32 bits",
    "endianness": "vectors are of 32 bits",
    "stream": "answers are not streamed",
    "stream_options": "answers are not streamed",
    "response_format": "answer",
    "structured_outputs": "answer",
    "guided_json": "answer",
    "guided_choice": "answer",
    "guided_regex": "answer",
    "guided_grammar": "answer",
    "regex": "answer",
    "ebnf": "answer",
    "grammar": "answer",
    "max_completion_tokens": "sampling.max_tokens",
    "top_logprobs": "sampling.logprobs",
    "echo": "answers are without their prompt",
    "suffix": "text is not filled in between",
    "best_of": "sampling.n",
    "use_beam_search": "beam search is not supported",
    "continue_final_message": "a prompt's prefill",
    "add_generation_prompt": "a prompt's prefill",
    "return_token_ids": "token ids are not used",
    "metadata": "batches are found again by it",
    "extra_body": "its fields are engine.args themselves",
    "extra_headers": "a key is given by engine.key_env, and no other headers are sent",
    **{name: f"sampling.{name}" for name in SAMPLING},
}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class OpenAISettings(HttpSettings):
    """The engine section of a job on a server with OpenAI's API. ``args`` are further fields of each request's body."""

    served_name: str | None = Field(None, description="the model's name at the server; by default the job's model")
    check_model: Annotated[bool, Counts.NOTHING] = Field(
        True, description="false: also a model that is not in the server's list, as some gateways have them"
    )
    dialect: DialectName = Field(
        "auto",
        description="whose server it is, where it cannot be asked: decides how regex, grammar and choices are sent",
    )
    tokenizer: Annotated[
        str | None,
        Counts.NOTHING,
        IsPath(lambda value, base: is_named_as_path(value) or is_there(value, base)),
    ] = Field(
        None, description="a model's folder or hub name, by whose tokenizer a plan counts tokens; a run needs none"
    )
    schemas: Literal["grammar", "response_format"] = Field(
        "grammar",
        description="how vLLM is sent a schema: as the grammar that the vllm engine makes of it, which needs xgrammar here and "
        "at the server; or as response_format, which lets a weak model fill its answer with white space",
    )
    classes: list[str] | None = Field(
        None,
        description="for the program classify: the names of the model's classes, in its order. vLLM's server tells the likeliest "
        "one's alone; by default they are LABEL_0, LABEL_1, ...",
    )
    mode: Annotated[Literal["online", "batch"], Counts.NOTHING] = Field(
        "online", description="batch: through the server's Batch API, which takes up to a day and costs less"
    )

    poll: Annotated[float, Counts.NOTHING] = Field(
        30.0, gt=0, description="batch: seconds between two looks at a batch"
    )

    @property
    def are_openais(self) -> bool:
        """Whether the servers are OpenAI's own."""
        return all(urlsplit(url).hostname == "api.openai.com" for url in self.urls)

    @field_validator("key_env")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and not _VARIABLE.fullmatch(name):
            # no ValueError: its message would say what was given, which may be the key
            raise JobError(
                "engine.key_env is the name of an environment variable that holds the key, such as OPENAI_API_KEY"
            )
        return name

    @model_validator(mode="after")
    def _has_a_server(self) -> OpenAISettings:
        if not self.urls:
            raise JobError("engine.urls is missing: the server's URL, such as http://localhost:8000/v1")
        if self.mode == "batch" and len(self.urls) > 1:
            raise ValueError("engine.urls: batches go to one server, and these are several")
        if self.reasoning_parser is not None:
            raise ValueError(
                "engine.reasoning_parser: the server splits the thinking off, and is told so there (vllm serve "
                "--reasoning-parser): take it out"
            )
        if self.tool_call_parser is not None:
            raise ValueError(
                "engine.tool_call_parser: the server reads the calls, and is told so there (vllm serve --tool-call-parser "
                "--enable-auto-tool-choice): take it out"
            )
        for name in self.args:
            if (place := _OURS.get(name)) is not None:
                raise ValueError(f"engine.args.{name} has a place of its own in a job: {place}")
        return self


__all__ = ["DialectName", "OpenAISettings"]
