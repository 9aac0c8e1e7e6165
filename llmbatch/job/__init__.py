"""The job: YAML, flags or Python in; checked settings, an identity, and the recipe by which rows become records, out."""
