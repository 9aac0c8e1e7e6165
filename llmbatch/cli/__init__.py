"""The command line. A new command is a file here and a line in this table: where it is, and its line in ``llmbatch --help``."""

COMMANDS = {
    "run": ("llmbatch.cli.run:run", "Run a model over every row of an input."),
    "render": ("llmbatch.cli.render:render", "Write the rendered requests; no model needed."),
    "plan": ("llmbatch.cli.plan:plan", "Say what a job would take; no model is loaded."),
    "bench": ("llmbatch.cli.bench:bench", "Measure an engine on a trtllm-bench data set."),
    "eval": ("llmbatch.cli.evaluate:evaluate", "Score a model on a task, with intervals."),
    "status": ("llmbatch.cli.status:status", "Counts, speed and time left of a run."),
    "show": ("llmbatch.cli.show:show", "One row: its prompt, every attempt, its result."),
    "report": ("llmbatch.cli.report:report", "Write a run's page: plots, failures, records."),
    "merge": ("llmbatch.cli.merge:merge", "Put the finished slices of an input into one folder."),
    "retry-failed": ("llmbatch.cli.retry_failed:retry_failed", "Run the rows that are not ok again."),
    "compare": ("llmbatch.cli.compare:compare", "Say which evaluation is better, and whether that is luck."),
    "publish": ("llmbatch.cli.publish:publish", "Make a dataset of finished runs, with a card."),
    "audit": ("llmbatch.cli.audit:audit", "Prove that a run folder is whole."),
    "serve": ("llmbatch.cli.serve:serve", "Serve OpenAI's batch API, and live requests, on a model."),
    "azureml": ("llmbatch.cli.azureml:azureml", "Batch deployments of Azure ML, with their scoring scripts."),
    "prompts": ("llmbatch.cli.prompts:prompts", "List, show and check prompt files."),
    "demo": ("llmbatch.cli.demo:demo", "A small real run with the model that comes along."),
}
