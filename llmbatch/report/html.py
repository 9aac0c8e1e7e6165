"""A report in, one self-contained HTML page out. Everything that comes from rows or the engine is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from llmbatch.core import words
from llmbatch.report.report import Report
from llmbatch.report.summary import headline, next_steps

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.folder }}: {{ headline }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem 1.2rem .2rem 0; vertical-align: top; }
th { font-weight: normal; opacity: .65; } .n { text-align: right; font-variant-numeric: tabular-nums; }
.bar { display: flex; height: .8rem; border-radius: .4rem; overflow: hidden; background: #8883; }
.ok { background: #2a9d55; } .invalid, .truncated { background: #d9a400; } .failed { background: #c8373a; }
.skipped { background: #3a8fb7; } pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
</style>
</head>
<body>
<h1>{{ headline }}</h1>
<div class="bar">{% for status, n in statuses -%}
<span class="{{ status }}" style="flex: {{ n }}" title="{{ status }} {{ n }}"></span>
{%- endfor %}</div>
{% for note in report.notes %}<p>{{ note.level }}: {{ note.message }}</p>
{% endfor %}
{% if plots %}<h2>Scores</h2>
{{ plots }}
{% endif %}<h2>Rows</h2>
<table>
{% for status, n in statuses %}<tr><td>{{ status }}</td>
<td class="n">{{ n | count }}</td><td class="n">{{ (n / done) | share }}</td></tr>
{% endfor %}{% if report.children is defined and report.children %}{% for status, n in report.children.by_status.items() if n %}
<tr><td>children: {{ status }}</td><td class="n">{{ n | count }}</td><td></td></tr>
{% endfor %}{% endif %}</table>
{% if report.failures %}<h2>Failures</h2>
<table><tr><th>kind</th><th class="n">rows</th><th>for example</th></tr>
{% for kind, failure in report.failures.items() %}<tr><td>{{ kind }}</td><td class="n">{{ failure.rows | count }}</td>
<td>{{ failure.id }}<pre>{{ failure.message }}</pre></td></tr>
{% endfor %}</table>{% endif %}
{% if accept %}<h2>Candidates</h2>
<table><tr><th></th><th class="n">rows</th><th>for example</th></tr>
<tr><td>accepted</td><td class="n">{{ accept.accepted | count }}</td><td></td></tr>
{% for reason, fell in accept.fell.items() %}<tr><td>fell: {{ reason }}</td><td class="n">{{ fell.rows | count }}</td>
<td>{{ fell.id }}<pre>{{ fell.message }}</pre></td></tr>
{% endfor %}<tr><td>asked beyond what was needed</td><td class="n">{{ accept.surplus | count }}</td><td></td></tr>
</table>{% endif %}
<h2>Tokens</h2>
<table><tr><th></th><th class="n">prompt</th><th class="n">of them cached</th><th class="n">completion</th></tr>
{% for name in ("useful", "wasted", "folded", "total") %}{% set sum = report.tokens[name] %}<tr><td>{{ name }}</td>
<td class="n">{{ sum.prompt_tokens | count }}</td><td class="n">{{ sum.cached_tokens | count }}</td>
<td class="n">{{ sum.completion_tokens | count }}</td></tr>
{% endfor %}{% for kind, back in report.sent_back.items() %}<tr><td>sent back: {{ kind }} ({{ back.answers | count }} answers)</td>
<td class="n">{{ back.tokens.prompt_tokens | count }}</td><td class="n">{{ back.tokens.cached_tokens | count }}</td>
<td class="n">{{ back.tokens.completion_tokens | count }}</td></tr>
{% endfor %}</table>
<h2>Sessions</h2>
<table><tr><th>began</th><th>outcome</th><th class="n">rows</th><th class="n">start-up</th><th class="n">running</th>
<th class="n">tokens/s out</th><th class="n">engine idle</th><th class="n">restarts</th></tr>
{% for each in report.sessions %}<tr><td>{{ each.started_at }}</td><td>{{ each.outcome }}</td>
<td class="n">{{ each.rows | count }}</td>
<td class="n">{{ each.seconds.start_up | duration }}</td><td class="n">{{ each.seconds.running | duration }}</td>
<td class="n">{{ (each.speed.completion_tokens or 0) | count }}</td><td class="n">{{ (each.idle_share or 0) | share }}</td>
<td class="n">{{ each.engine_restarts }}</td></tr>
{% endfor %}</table>
{% if replicas %}<h2>Engines of the last session</h2>
<table><tr><th>replica</th><th class="n">up</th><th class="n">busy</th><th class="n">tokens/s in</th><th class="n">tokens/s out</th>
<th class="n">cache hits</th><th class="n">deaths</th><th></th></tr>
{% for each in replicas %}<tr><td>{{ each.replica }}</td><td class="n">{{ each.seconds | duration }}</td>
<td class="n">{{ (each.busy_share or 0) | share }}</td><td class="n">{{ (each.speed.prompt_tokens or 0) | count }}</td>
<td class="n">{{ (each.speed.completion_tokens or 0) | count }}</td><td class="n">{{ (each.cache_hit_rate or 0) | share }}</td>
<td class="n">{{ each.deaths }}</td><td>{{ "left out" if each.left_out }}</td></tr>
{% endfor %}</table>{% endif %}
<h2>What ran</h2>
<table>
{% for name, value in facts %}<tr><th>{{ name }}</th><td><pre>{{ value }}</pre></td></tr>
{% endfor %}</table>
{% if steps %}<h2>Next</h2>
{% for step in steps %}<pre>{{ step }}</pre>
{% endfor %}{% endif %}
</body>
</html>
"""


def report_to_html(report: Report, plots: str = "") -> str:
    """The page, as a whole file. ``plots`` is SVG, in which everything from outside is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters.update(count=words.count, share=words.share, duration=words.duration)
    rows = report["rows"]
    return environment.from_string(_PAGE).render(
        report=report,
        plots=Markup(plots),  # noqa: S704 - drawn by our own code
        accept=report.get("accept"),
        replicas=report["sessions"][-1].get("replicas") if report["sessions"] else None,
        headline=headline(report),
        statuses=[(status, number) for status, number in rows["by_status"].items() if number],
        done=rows["done"],
        steps=next_steps(report),
        facts=list(_facts({name: report[name] for name in ("job", "input", "engine", "versions")})),
    )


def _facts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as rows of a table: ``engine.version``, its value."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _facts(inner, f"{name}.{key}" if name else str(key))
    elif value not in (None, "", [], ()):
        yield name, str(value)
