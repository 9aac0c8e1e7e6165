"""SQL on open-source Spark in, with Databricks' ``ai_query`` and task functions; a model's answers out, from the executors."""

FUNCTIONS = {
    "ai_query": "llmbatch.integrations.spark.ai_query:AI_QUERY",
    "ai_classify": "llmbatch.integrations.spark.tasks:AI_CLASSIFY",
    "ai_extract": "llmbatch.integrations.spark.tasks:AI_EXTRACT",
    "ai_gen": "llmbatch.integrations.spark.tasks:AI_GEN",
    "ai_summarize": "llmbatch.integrations.spark.tasks:AI_SUMMARIZE",
    "ai_translate": "llmbatch.integrations.spark.tasks:AI_TRANSLATE",
}
