"""What a transformers user writes today; llmbatch's transformers engine must give the same tokens for the same rows."""

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, ContinuousBatchingConfig, GenerationConfig


def main(model_path: str, data: str) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path)
    rows = load_dataset("json", data_files=data, split="train")
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": t}], add_generation_prompt=True, return_dict=False)
        for t in rows["text"]
    ]
    settings = GenerationConfig(max_new_tokens=16, do_sample=False, eos_token_id=tokenizer.eos_token_id)
    small = ContinuousBatchingConfig(
        page_size=32, num_blocks=64, max_batch_tokens=256
    )  # a small cache: seconds, not a minute
    outputs = model.generate_batch(prompts, generation_config=settings, continuous_batching_config=small, warmup=False)
    return [tokenizer.decode(o.generated_tokens, skip_special_tokens=True) for o in outputs.values()]
