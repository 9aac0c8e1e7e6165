"""The command line. A new command is a file here and a line in this table: where it is, and its line in ``llmbatch --help``."""

COMMANDS = {
    "init": ("llmbatch.cli.init:init", "Write a job file and a prompt for a corpus."),
    "run": ("llmbatch.cli.run:run", "Run a model over every row of an input."),
    "render": ("llmbatch.cli.render:render", "Write the rendered requests; no model needed."),
    "plan": ("llmbatch.cli.plan:plan", "Say what a job would take; no model is loaded."),
    "bench": ("llmbatch.cli.bench:bench", "Measure an engine on a trtllm-bench data set."),
    "eval": ("llmbatch.cli.evaluate:evaluate", "Score a model on a task, with intervals."),
    "status": ("llmbatch.cli.status:status", "Counts, speed and time left of a run."),
    "show": ("llmbatch.cli.show:show", "One row: its prompt, every attempt, its result."),
    "diff": ("llmbatch.cli.diff:diff", "The rows that ended otherwise in one run than in another."),
    "merge": ("llmbatch.cli.merge:merge", "Put the finished slices of an input into one folder."),
    "retry-failed": ("llmbatch.cli.retry_failed:retry_failed", "Run the rows that are not ok again."),
    "compare": ("llmbatch.cli.compare:compare", "Say which evaluation is better, and whether that is luck."),
    "publish": ("llmbatch.cli.publish:publish", "Make a dataset of finished runs, with a card."),
    "audit": ("llmbatch.cli.audit:audit", "Prove that a run folder is whole."),
    "serve": ("llmbatch.cli.serve:serve", "Serve batch APIs (OpenAI, Azure, AWS, Google) on a model."),
    "azureml": ("llmbatch.cli.azureml:azureml", "Batch deployments of Azure ML, with their scoring scripts."),
    "prompts": ("llmbatch.cli.prompts:prompts", "List, show and check prompt files."),
    "doctor": ("llmbatch.cli.doctor:doctor", "What is installed, what is missing, what starts."),
    "completion": ("llmbatch.cli.completion:completion", "What teaches a shell to complete this command."),
    "demo": ("llmbatch.cli.demo:demo", "A small real run with the model that comes along."),
}
