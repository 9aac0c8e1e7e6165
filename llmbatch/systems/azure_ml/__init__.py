"""Azure Machine Learning's batch deployments and parallel jobs: a YAML document in, what is to be run out."""
