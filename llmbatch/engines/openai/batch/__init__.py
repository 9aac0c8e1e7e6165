"""A server's Batch API: requests as files that it answers within a day."""
