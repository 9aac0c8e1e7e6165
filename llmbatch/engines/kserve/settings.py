"""A job's engine section for servers of the V2 protocol in; checked, and what of it the answers depend on, out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from llmbatch.core.settings import Counts, IsPath, is_named_as_path, is_there
from llmbatch.engines.http.settings import HttpSettings


class KserveSettings(HttpSettings):
    """The engine section of a job on Triton, mlserver, or whatever else speaks the V2 protocol."""

    served_name: str | None = Field(None, description="the model's name at the server; by default the job's model")
    version: str | None = Field(
        None, description="of the model at the server; by default the one that the server takes"
    )
    protocol: Annotated[Literal["auto", "v2", "generate"], Counts.NOTHING] = Field(
        "auto", description="v2: infer requests; generate: Triton's generate endpoint; auto: as the model needs it"
    )
    dialect: Literal["auto", "triton-vllm", "trtllm-llmapi", "trtllm-ensemble", "plain"] = Field(
        "auto", description="which inputs take which sampling setting; auto: as the model's inputs tell"
    )
    input: str | None = Field(
        None, description="the input that takes the prompt; by default text_input, or the only text"
    )
    output: str | None = Field(
        None, description="the output that holds the answer; by default text_output, or the only text"
    )
    parameters: dict[str, str] = Field(
        default_factory=dict,
        description="names at the model of sampling settings, e.g. {max_tokens: request_output_len}",
    )
    inputs: dict[str, str | int | float | bool | list[str | int | float | bool]] = Field(
        default_factory=dict,
        description="values of further inputs of the model, the same for every row, e.g. {language: en}",
    )
    repeats_prompt: bool | None = Field(
        None,
        description="whether an answer begins with its prompt, which is then taken off; by default as the dialect has it",
    )
    tokenizer: Annotated[str | None, IsPath(lambda value, base: is_named_as_path(value) or is_there(value, base))] = (
        Field(
            None,
            description="a model's folder or hub name, whose chat template makes messages the text that the server takes",
        )
    )
    batch: Annotated[int | None, Counts.NOTHING] = Field(
        None, ge=1, description="rows in one request; by default as many as the model's metadata has for a batch"
    )
    ready_within: Annotated[float, Counts.NOTHING] = Field(
        60.0, ge=0, description="seconds that a server which is up may take to be ready"
    )

    @model_validator(mode="after")
    def _of_a_server(self) -> KserveSettings:
        if not self.urls:
            raise ValueError("engine.urls is missing: where the server is, such as http://127.0.0.1:8000")
        if self.args:
            name = next(iter(self.args))
            raise ValueError(f"engine.args.{name}: a server is given its arguments where it is started: take it out")
        for name in ("reasoning_parser", "tool_call_parser"):
            if getattr(self, name) is not None:
                raise ValueError(f"engine.{name}: text is all that such a server gives: take it out")
        return self
