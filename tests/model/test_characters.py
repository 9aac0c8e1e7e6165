from __future__ import annotations

from array import array

from llmbatch.core.types import Prompt
from llmbatch.model.characters import Characters


def ids_of(prompt: Prompt) -> list[int]:
    (ids,) = Characters().encode([prompt])
    assert isinstance(ids, list)
    return ids


def test_four_bytes_of_text_are_a_token() -> None:
    assert len(ids_of(Prompt(text="12345678"))) == 2
    assert len(ids_of(Prompt(text="123456789"))) == 3
    assert len(ids_of(Prompt(text="\u4e2d" * 4))) == 3
    assert len(array("I", ids_of(Prompt(text="\U0010ffff\u4e2d")))) == 2, "each is a token id as others are"


def test_equal_beginnings_are_equal_tokens_and_the_text_comes_out_again() -> None:
    system = {"role": "system", "content": "You sort letters."}
    one, two = (ids_of(Prompt(messages=(system, {"role": "user", "content": text}))) for text in ("abc", "xyz"))
    assert one != two
    assert one[:6] == two[:6]
    assert Characters().decode([one]) == ["system\nYou sort letters.user\nabc"]


def test_of_images_nothing_is_counted() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1000}}
    content = [{"type": "text", "text": "See"}, picture]
    assert len(ids_of(Prompt(messages=({"role": "user", "content": content},)))) == 2
