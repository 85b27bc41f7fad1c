"""Prints what was measured, and writes the section about its subject into the page of benchmarks.

Invariant: only what stands between the markers of the numbers is written anew.
Not here: measuring (``measure``).
"""

import re

from report import aligned, markdown, number, verdict_table, versions


def marks(subject):
    """Between which of a subject's numbers stand."""
    return f"<!-- {subject}:begin -->", f"<!-- {subject}:end -->"


def empty(subject):
    """A page without numbers."""
    return "\n".join([*marks(subject), ""])


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


def tables(rows, form, subject):
    """``(title, table)`` of the tables that have lines."""
    found = [
        (f"{subject.capitalize()} against the others", verdict_table(rows)),
        (f"Every server of {subject}", load_table(rows)),
        (f"Other values of {subject}", fact_table(rows)),
    ]
    return [(title, form(table)) for title, table in found if len(table) > 1]


def text(about, rows, subject):
    """The report for a terminal."""
    parts = [f"{about['machine']}\n{versions(about)}"]
    parts += [f"{title}\n\n{table}" for title, table in tables(rows, aligned, subject)]
    return "\n\n".join(parts)


def section(about, rows, how, subject):
    """The numbers for the page, with their markers. ``how``: how many and how long."""
    begin, end = marks(subject)
    parts = [
        begin,
        f"{about['date']}, {about['machine']}; load average before: {about['load']:.2f}.",
        f"{versions(about)}.",
        how,
    ]
    parts += [f"### {title}\n\n{table}" for title, table in tables(rows, markdown, subject)]
    return "\n\n".join([*parts, end])


def page(about, rows, how, old_page, subject):
    """The whole page with new numbers."""
    begin, end = marks(subject)
    between = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    if not between.search(old_page):
        raise ValueError(f"the page has no place for the numbers: {begin} … {end}")
    return between.sub(lambda _: section(about, rows, how, subject), old_page)
