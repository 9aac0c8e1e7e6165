"""The server of the batch APIs: HTTP requests in, batches as run folders and live answers out, on one engine."""
