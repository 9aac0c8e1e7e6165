"""The transformers engine: a feed of requests in, a stream of outcomes out, by Hugging Face's library itself.

For models that vLLM does not have, and for people without vLLM. Only this package knows that library's classes for generation, and
it imports torch when an engine starts, not before.

| module | in -> out |
|---|---|
| `kind` | what the rest of llmbatch knows of this engine |
| `settings` | a job's engine section -> what of it this engine takes, and what the answers depend on |
| `engine` | one engine from its start to its end |
| `loading` | settings -> the model, on its device |
| `loop` | feed -> rows -> outcomes |
| `rows` | a request's tokens as they come -> where its answer ends, and the answer |
| `sampling` | a request's settings by vLLM's names -> what is done to the scores |
| `choosing` | scores of a step's rows -> the same with each row's own settings applied, and seeded draws |
| `continuous` | rows -> the library's continuous batching |
| `plain` | rows -> the library's `generate`, in batches, where continuous batching is not for the model |
| `score` | prompts with given continuations -> their likelihoods |
| `trouble` | exceptions of torch and the library -> ours, with what to try |
| `log` | what the library says -> a file |
"""
