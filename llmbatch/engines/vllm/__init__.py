"""The vLLM engine: a feed of requests in, a stream of outcomes out, on vLLM's offline engine (0.27 to 0.32).

Only this package knows vLLM's names, and it imports vLLM when an engine starts or tokenizes, not before.

| module | in -> out |
|---|---|
| `kind` | what the rest of llmbatch knows of this engine |
| `settings` | a job's engine section -> what of it vLLM takes, and what the answers depend on |
| `engine` | one engine from its start to its end |
| `loop` | feed -> vLLM -> outcomes |
| `haste`, `later`, `lookups`, `vector` | a start -> the same without what takes seconds and gives nothing |
| `compiled`, `cpu_worker` | what an earlier start compiled for a CPU -> loaded again |
| `args` | settings -> engine arguments, checked, with defaults for offline use |
| `sampling` | a request's settings -> vLLM's `SamplingParams`, checked once for each distinct setting |
| `pooling` | a request for numbers -> vLLM's `PoolingParams`, and what vLLM gives -> the numbers |
| `purpose` | settings and a model's config -> the settings for what it is to give, text or numbers |
| `structured` | a constraint -> vLLM's structured outputs, with JSON spaced as models write it |
| `render` | prompts -> token ids, by our tokenizer where it agrees with vLLM's renderer, else by that |
| `text` | token ids of an answer -> its text and log-probabilities |
| `reasoning` | an answer's text -> its thinking part and the rest |
| `calls` | an answer's text -> the calls of tools in it and the rest |
| `processes` | start and end of the engine's own processes |
| `log` | whatever vLLM and its processes print -> a file |
| `trouble` | vLLM's exceptions -> ours, with what to try |
"""
