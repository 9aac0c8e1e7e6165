"""Train the demo model: a budget of minutes comes in, a model folder that vLLM can load goes out.

    python eval/demo_model/train.py --minutes 22 --out llmbatch/demo/model

CPU only, no downloads: the tokenizer is trained on the same generated data as the model. Every `--save-every` seconds
the held-out exact match is printed and the folder replaced, so a run that is cut short still leaves a model.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from data import Example, messages, number_example, order_example
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 512
CONTEXT = 4096
SPECIAL = ("<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
PAD, END = "<|pad|>", "<|end|>"

# Roles the model never saw (a tool's answer, say) are read as the user's; tools are ignored. The content is taken as a
# plain string on purpose: a loop over content parts would make vLLM hand over lists of parts instead of text.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- set role = message['role'] if message['role'] in ['system', 'assistant'] else 'user' -%}"
    "{{- '<|' + role + '|>' + (message['content'] or '') + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def example(rng: random.Random, *, held_out: bool) -> Example:
    """One example of either task, from one side of the split."""
    # Numbers are the harder task for so small a model, and their sequences are shorter.
    return (number_example if rng.random() < 0.6 else order_example)(rng, held_out=held_out)


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE, so that any text tokenizes.

    Blanks and digits are tokens of their own: a word is then the same tokens in the prompt and in the answer, wherever
    it stands, and copying it is easy to learn.
    """
    rng = random.Random(f"tokenizer {seed}")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+|\d|\p{L}+|[^\s\d\p{L}]+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    drawn = (example(rng, held_out=False) for _ in range(20_000))
    bpe.train_from_iterator((text for one in drawn for text in (*one.row.values(), one.answer)), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(SPECIAL[1:4]),
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama of about 0.85 million parameters."""
    end = tokenizer.convert_tokens_to_ids(END)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=config.pad_token_id, do_sample=False)
    return model


class Sequences:
    """Turns examples into token ids and labels; only the answer is scored."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._pad = int(tokenizer.convert_tokens_to_ids(PAD))

    def encode(self, examples: list[Example]) -> list[tuple[list[int], int]]:
        """The ids of each example and how many of them are the prompt."""
        prompts = [
            str(self._tokenizer.apply_chat_template(messages(one), tokenize=False, add_generation_prompt=True))
            for one in examples
        ]
        prompt_ids = self._tokenizer(prompts, add_special_tokens=False)["input_ids"]
        answers = [one.answer + END for one in examples]
        answer_ids = self._tokenizer(answers, add_special_tokens=False)["input_ids"]
        return [(prompt + answer, len(prompt)) for prompt, answer in zip(prompt_ids, answer_ids, strict=True)]

    def batch(self, sequences: list[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and next-token labels, both (sequences, longest - 1), padded on the right; -100 is not scored."""
        longest = max(len(ids) for ids, _ in sequences)
        ids = torch.full((len(sequences), longest), self._pad)
        labels = torch.full((len(sequences), longest), -100)
        for place, (tokens, prompt) in enumerate(sequences):
            ids[place, : len(tokens)] = torch.tensor(tokens)
            labels[place, prompt : len(tokens)] = ids[place, prompt : len(tokens)]
        return ids[:, :-1], labels[:, 1:]

    def stream(self, rng: random.Random, batch_tokens: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Training batches of about `batch_tokens` tokens without end, alike in length so that little is padding."""
        while True:
            pool = self.encode([example(rng, held_out=False) for _ in range(4096)])
            pool.sort(key=lambda sequence: len(sequence[0]))
            batches: list[list[tuple[list[int], int]]] = [[]]
            for sequence in pool:
                if (len(batches[-1]) + 1) * len(sequence[0]) > batch_tokens:
                    batches.append([])
                batches[-1].append(sequence)
            rng.shuffle(batches)
            yield from map(self.batch, batches)


def exact_match(model: LlamaForCausalLM, sequences: Sequences, examples: list[Example]) -> float:
    """The share of examples that greedy decoding gets exactly right.

    One forward pass each tells: greedy decoding gives the answer if and only if, after every prefix of the answer, its
    next token is the likeliest.
    """
    encoded = sorted(sequences.encode(examples), key=lambda sequence: len(sequence[0]))
    right = 0
    with torch.inference_mode():
        for start in range(0, len(encoded), 100):
            ids, labels = sequences.batch(encoded[start : start + 100])
            guesses = model(ids).logits.argmax(-1)
            right += int(((guesses == labels) | (labels == -100)).all(-1).sum())
    return right / len(encoded)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the model folder; each file is whole at every moment, as others may be loading it."""
    scratch = folder.with_name(f"{folder.name}.new")
    model.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    # transformers 5 writes names that transformers 4 does not know; these are read by both.
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": list(SPECIAL[1:4]),
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (scratch / "chat_template.jinja").unlink(missing_ok=True)
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (scratch / "tokenizer_config.json").write_text(text, encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    for file in scratch.iterdir():
        file.chmod(0o644)  # the weights are written readable by their owner alone
        file.replace(folder / file.name)
    scratch.rmdir()


def learning_rate(progress: float, peak: float) -> float:
    """Warm-up, plateau, then a cosine to zero; `progress` is the share of the time budget spent."""
    if progress < 0.02:
        return peak * progress / 0.02
    if progress < 0.4:
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 0.4) / 0.6)))


def main() -> None:
    """Train for the given minutes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=22)
    parser.add_argument("--out", type=Path, default=Path("llmbatch/demo/model"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-tokens", type=int, default=3072)
    parser.add_argument("--peak", type=float, default=4e-3, help="highest learning rate of the rest")
    parser.add_argument("--muon", type=float, default=0.02, help="highest learning rate of the hidden matrices")
    parser.add_argument("--save-every", type=float, default=60, help="seconds between evaluations and saves")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    tokenizer = train_tokenizer(options.seed)
    model = new_model(tokenizer)
    sequences = Sequences(tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)

    test_rng = random.Random(f"test {options.seed}")
    tests = {
        "numbers": [number_example(test_rng, held_out=True) for _ in range(600)],
        "orders": [order_example(test_rng, held_out=True) for _ in range(400)],
    }
    # Muon learns from fewer tokens than AdamW, but is meant for the hidden matrices only.
    inner = [p for name, p in model.named_parameters() if p.ndim > 1 and "embed" not in name]
    outer = [p for name, p in model.named_parameters() if p.ndim <= 1 or "embed" in name]
    optimizers: dict[torch.optim.Optimizer, float] = {
        torch.optim.Muon(inner, lr=options.muon, weight_decay=0.1): options.muon,
        torch.optim.AdamW(outer, lr=options.peak, betas=(0.9, 0.98), weight_decay=0.0): options.peak,
    }
    start = saved = time.monotonic()
    seconds = options.minutes * 60
    tokens = 0
    batches = sequences.stream(random.Random(f"train {options.seed}"), options.batch_tokens)
    for step, (ids, labels) in enumerate(batches):
        now = time.monotonic()
        done = now - start > seconds
        if done or now - saved > options.save_every:
            scores = ", ".join(f"{name} {exact_match(model, sequences, rows):.3f}" for name, rows in tests.items())
            print(f"{(now - start) / 60:5.1f} min, step {step}, {tokens:,} tokens: {scores}", flush=True)
            save(model, tokenizer, options.out)
            saved = time.monotonic()
        if done:
            break
        for optimizer, peak in optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate((now - start) / seconds, peak)
        logits = model(ids).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        tokens += ids.numel()
        if step % 50 == 0:
            print(f"  step {step}, loss {loss.item():.4f}, {tokens / (now - start + 1e-9):,.0f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
