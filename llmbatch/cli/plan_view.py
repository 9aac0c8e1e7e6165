"""A survey in, what ``llmbatch plan`` prints out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from llmbatch.core import words
from llmbatch.measure.survey import Prices, Survey, costs

_BAR_WIDTH = 40


def view(survey: Survey, advice: Sequence[str], prices: Prices, measured: Sequence[str] = ()) -> RenderableType:
    """All of it, for rich to print. ``measured`` are sentences about a calibration."""
    return Group(*_parts(survey, advice, prices, measured))


def _parts(survey: Survey, advice: Sequence[str], prices: Prices, measured: Sequence[str]) -> Iterator[RenderableType]:
    yield _figures(survey)
    if survey.with_images:
        said = f"Not counted: the tokens of the images that {survey.with_images:,} prompts have: only the engine knows them"
        yield Text(said, style="yellow")
    if survey.not_counted:
        yield Text(f"Not counted: {survey.not_counted}: it depends on the answers before it", style="yellow")
    if survey.requests:
        yield Text("\nTokens of a prompt", style="bold")
        yield _histogram(survey)
    if survey.troubles:
        yield Text("\nRows that will get no answer", style="bold")
        yield _troubles(survey)
    yield Text("\nPrompt tokens to compute", style="bold")
    yield _computing(survey)
    if costs(survey, prices):
        yield Text("\nTime and cost", style="bold")
        yield _costs(survey, prices)
    for sentence in measured:
        yield Text(sentence, style="dim")
    for sentence in advice:
        yield Text()
        yield Text("Advice: ", style="bold yellow").append(words.printable(sentence), style="default")


def too_long_sentences(survey: Survey, overflow: str) -> list[str]:
    """What becomes of rows that the context does not hold, where they are asked all the same."""
    if survey.limits.context_length is None:
        said = "The engine does not tell its context length: which rows fit cannot be known"
        return [f"{said}, and --overflow {overflow} has no effect." if overflow != "error" else f"{said}."]
    long = survey.too_long
    if not long.rows:
        return []
    rows = f"{words.count(long.rows)} of {words.count(survey.rows)} rows are too long"
    if overflow == "chunk":
        return [f"{rows}: they are asked in {words.count(long.requests)} chunks."]
    unknown = f"; {words.count(long.not_measured)} of them are too long to be counted" if long.not_measured else ""
    what = "max_tokens is lowered by" if overflow == "shrink-output" else f"{overflow} takes"
    tokens = f"{words.count(long.tokens)} tokens in all, at most {words.count(long.most)} of one"
    return [f"{rows}: {what} {tokens}{unknown}."]


def _pairs() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column(justify="left", style="dim")
    return table


def _figures(survey: Survey) -> Table:
    table = _pairs()
    table.add_row("rows", words.count(survey.rows))
    table.add_row("requests", words.count(survey.requests))
    if survey.duplicates:
        spared = f"exact repeats, run once: {words.count(survey.folded_tokens)} prompt tokens less"
        table.add_row("duplicates", words.count(survey.duplicates), spared)
    table.add_row("prompt tokens", words.count(survey.prompt_tokens), f"longest prompt {words.count(survey.longest)}")
    most = f"expected; at most {words.count(survey.answer_tokens_most)}"
    table.add_row("answer tokens", words.count(survey.answer_tokens), most)
    if survey.may_be_cut and survey.limits.context_length is not None:
        context = words.count(survey.limits.context_length)
        table.add_row(
            "may be cut", words.count(survey.may_be_cut), f"prompt and max_tokens exceed the context of {context}"
        )
    return table


def _histogram(survey: Survey) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    table.add_column()
    table.add_column(justify="right")
    bars = survey.histogram()
    most = max(bar.prompts for bar in bars)
    context = survey.limits.context_length
    for bar in bars:
        width = max(1, round(_BAR_WIDTH * bar.prompts / most)) if bar.prompts else 0
        fits = context is None or bar.low < context
        drawn = Text("█" * width, style="green" if fits else "red")
        table.add_row(f"{words.count(bar.low)} - {words.count(bar.high - 1)}", drawn, words.count(bar.prompts))
    return table


def _troubles(survey: Survey) -> Table:
    table = Table.grid(padding=(0, 2))
    for kind, count in survey.troubles.most_common():
        examples = survey.examples[kind]
        ids = ", ".join(words.one_line(str(row), 40) for row, _ in examples) + (
            ", ..." if count > len(examples) else ""
        )
        table.add_row(Text(kind, style="red"), words.count(count), Text(f"rows {ids}"))
        table.add_row("", "", Text(words.one_line(examples[0][1], 300), style="dim"))
    return table


def _computing(survey: Survey) -> Table:
    limits = survey.limits
    table = _pairs()
    if limits.kv_cache_tokens is None:
        unknown = "with a cache that holds a window; --gpu-memory-gib or --kv-cache-tokens predict a real one"
        table.add_row("to compute", words.count(survey.computed_least), unknown)
        table.add_row("spared by shared prefixes", words.share(survey.hit_rate_possible), "hit rate")
        return table
    cache = f"KV cache of {words.count(limits.kv_cache_tokens)} tokens, {limits.max_num_seqs} requests at a time"
    table.add_row(
        "in input order", words.count(survey.computed_given), f"hit rate {words.share(survey.hit_rate_given)}; {cache}"
    )
    saved = (
        f", {words.share(survey.saving)} saved"
        if survey.computed < survey.computed_given
        else ", the order is left alone"
    )
    table.add_row("as planned", words.count(survey.computed), f"hit rate {words.share(survey.hit_rate)}{saved}")
    possible = f"hit rate {words.share(survey.hit_rate_possible)}"
    table.add_row("with room for a window", words.count(survey.computed_least), possible)
    return table


def _costs(survey: Survey, prices: Prices) -> Table:
    found = costs(survey, prices)
    table = _pairs()
    if "hours_low" in found:
        seconds = [words.rough(found[name] * 3600) for name in ("hours", "hours_low", "hours_high")]
        table.add_row("time", seconds[0], f"measured; {seconds[1]} to {seconds[2]} in four of five cases")
    elif "hours" in found:
        speed = f"at {words.count(prices.tokens_per_second or 0)} tokens/s, answers as long as expected"
        table.add_row("time", words.rough(found["hours"] * 3600), speed)
    if "cost_gpu" in found:
        bounds = f"{found['cost_gpu_low']:,.2f} to {found['cost_gpu_high']:,.2f}; " if "cost_gpu_low" in found else ""
        paid = f"{bounds}{prices.gpus} GPU at {prices.per_gpu_hour:g} an hour"
        table.add_row("cost", f"{found['cost_gpu']:,.2f}", paid)
    if "cost_tokens" in found and prices.per_million is not None:
        into, out, _ = prices.per_million
        table.add_row("price by tokens", f"{found['cost_tokens']:,.2f}", f"{into:g} a million in, {out:g} out")
    return table
