"""Any server with OpenAI's API as an engine: vLLM's, SGLang's, llama.cpp's, Ollama's, TGI's, a hosted one."""
