"""What a short script does with transformers: rows in, ``generate`` in batches of 128, a line of JSON a row out.

    python generate_script.py MODEL SOURCE TARGET

Nothing of llmbatch is imported here: the whole process counts, from its start to its end.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH = 128
MAX_TOKENS = 64  # of the prompt file's sampling


def main(model_path: str, source: str, target: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype="auto").eval()
    rows = [json.loads(line) for line in Path(source).read_text(encoding="utf-8").splitlines()]
    with Path(target).open("w", encoding="utf-8") as file, torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            chats = [
                [
                    {"role": "system", "content": f"Translate to {row['language']}."},
                    {"role": "user", "content": row["text"]},
                ]
                for row in batch
            ]
            inputs = tokenizer.apply_chat_template(
                chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
            )
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_TOKENS)
            texts = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for row, text in zip(batch, texts, strict=True):
                file.write(json.dumps({"id": row["id"], "text": text}, ensure_ascii=False) + "\n")
            file.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
