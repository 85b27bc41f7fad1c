"""Prints what was measured, and writes the section about it into the page of benchmarks.

Invariant: only what stands between the markers of the numbers is written anew.
Not here: measuring (``measure``).
"""

import re

from report import aligned, markdown, number, verdict_table, versions

BEGIN, END = "<!-- dispatch:begin -->", "<!-- dispatch:end -->"
EMPTY = f"{BEGIN}\n{END}\n"


def load_table(rows):
    """Every server under every load."""
    table = [["load", "who", "per second", "spread", "p50 ms", "p99 ms", "server", "load"]]
    for row in rows.values():
        for name, load in row.get("loads", {}).items():
            spread = f"{number(load['per_sec_min'])} – {number(load['per_sec_max'])}"
            table.append([
                row["title"], name, number(load["per_sec"]), spread, number(load.get("p50_ms")),
                number(load.get("p99_ms")), share(load.get("server_cpu")),
                share(load.get("load_cpu")),
            ])
    return table


def share(value):
    """A share of a core; nothing where it is not known."""
    return "" if value is None else f"{value:.0%}"


def fact_table(rows):
    """The single values."""
    facts = [fact for row in rows.values() for fact in row.get("facts", [])]
    shown = [
        [what, f"{value if isinstance(value, str) else number(value)} {unit}".strip()]
        for what, value, unit in facts
    ]
    return [["what", "value"]] + shown


def tables(rows, form):
    """``(title, table)`` of the tables that have lines."""
    found = [
        ("Dispatch against the others", verdict_table(rows)),
        ("Every server of dispatch", load_table(rows)),
        ("Other values of dispatch", fact_table(rows)),
    ]
    return [(title, form(table)) for title, table in found if len(table) > 1]


def text(about, rows):
    """The report for a terminal."""
    parts = [f"{about['machine']}\n{versions(about)}"]
    parts += [f"{title}\n\n{table}" for title, table in tables(rows, aligned)]
    return "\n\n".join(parts)


def section(about, rows, plan):
    """The numbers for the page, with their markers."""
    parts = [
        BEGIN,
        f"{about['date']}, {about['machine']}; load average before: {about['load']:.2f}.",
        f"{versions(about)}.",
        f"{plan.runs} turns of {plan.secs} s each.",
    ]
    parts += [f"### {title}\n\n{table}" for title, table in tables(rows, markdown)]
    return "\n\n".join([*parts, END])


def page(about, rows, plan, old_page):
    """The whole page with new numbers."""
    between = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not between.search(old_page):
        raise ValueError(f"the page has no place for the numbers: {BEGIN} … {END}")
    return between.sub(lambda _: section(about, rows, plan), old_page)
