"""What of vLLM's settings may be faster: one file a kind, and its line here. ``base`` has the contract."""

CANDIDATES = {
    "batch size": "llmbatch.engines.vllm.candidates.batch_size:candidates",
    "speculation": "llmbatch.engines.vllm.candidates.speculation:candidates",
    "replicas": "llmbatch.engines.vllm.candidates.parallel:candidates",
    "kv cache": "llmbatch.engines.vllm.candidates.kv_cache:candidates",
    "kv offload": "llmbatch.engines.vllm.candidates.kv_offload:candidates",
    "performance mode": "llmbatch.engines.vllm.candidates.performance_mode:candidates",
    "quantization": "llmbatch.engines.vllm.candidates.quantization:candidates",
}
"""Kind -> what gives its candidates, in the order in which they are tried."""
