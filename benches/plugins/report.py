"""Prints what was measured, and writes the page about it.

Invariant: what stands from the beginning of the notes to the end of the page is kept as it is.
Not here: measuring (``rows``).
"""

import re

BEGIN, END = "<!-- notes:begin -->", "<!-- notes:end -->"

HEAD = """# Benchmarks of the plugin server

<!-- Written by `make bench-plugins` up to the notes, which are written by hand. -->
"""

METHOD = """
## How it is measured

`make bench-plugins` installs what is compared with (nginx and wrk from Debian, the Python packages
from PyPI into `.bench`), builds the release binary, measures, and writes this page.
`benches/plugins/run.sh --only tiny,post` measures some rows and `--quick` all of them roughly; both
only print. The numbers of every run are in `.bench/results.json`.

- One machine, loopback only. The server under test and its workers share one core (`taskset`); wrk
  has the other, with one thread and 32 connections that are kept open. All servers of a row are
  running while it is measured; those that are not asked are idle.
- The servers take turns, each {secs} s after {warm_up} s of warm-up, {runs} times, and another one begins
  each time. Numbers are medians of these runs; *spread* is from the slowest to the fastest run.
- An answer is checked before it is measured. A single failed request ends the measurement of
  its row.
- wrk sends the next request of a connection when the last one is answered. So a p99 is the one at the
  server's own full speed, not at a rate that is the same for all.
- *req/CPU s* is requests for each second of processor time that the server used.
- The last columns are shares of a core that were used. Where *wrk* is near 100 %, wrk is what is
  measured, and the server could do more. *rest* is everything else on the machine: a few percent are
  interrupts; where it is more, the machine was not quiet and the numbers are rough.
- All Python servers run the same interpreter. The plugin is the same file for us and for
  pluginserver; Granian (one worker, RSGI) and Uvicorn (one process, ASGI, httptools) have the same
  `json.loads` and `json.dumps` without any framework, and uvloop. Our workers have the standard
  library alone, except in the rows named *uvloop + orjson*.
- `/systeminfo`: the plugin of pluginserver reads the system with psutil for each request. Ours answers
  from a reading that is at most a second old.
- Two workers: servers, workers and wrk share both cores, for one worker and for two. With two
  workers everything else runs beside them, so the shorter the work, the less than 2 is the ratio.
- nginx: one worker process, `sendfile` and `tcp_nopush` on, no log, no `open_file_cache`,
  connections kept. Files are plain text; a markdown page is compared with a file as large as the page
  when rendered.
- 1,000 clients load a file of 1 MB over and over; flat means that memory grows by at most
  128 KiB for each, an eighth of the file.
- Memory is the resident set of the one process named, in units of 1,000,000 bytes.
- Start: from creating the process to having read the status 200 of its first answer, polled about
  every half millisecond; median of {starts}. Everything on one core unless it says otherwise.
"""


def verdict(what, unit, ours, peer_name, peer, bar=None, at_most=False):
    """One comparison. ``bar`` is for ours / peer, or for ``ours`` when there is no peer."""
    ratio = ours / peer if peer else None
    value = ours if ratio is None else ratio
    met = None if bar is None else (value <= bar if at_most else value >= bar)
    return {
        "what": what, "unit": unit, "ours": ours, "peer_name": peer_name, "peer": peer,
        "ratio": ratio, "bar": bar, "at_most": at_most, "met": met,
    }


def number(value):
    """As many digits as say something."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def bar_of(verdict):
    """``≥ 3×``, or ``≤ 15 MB`` where there is no peer."""
    if verdict["bar"] is None:
        return ""
    sign = "≤" if verdict["at_most"] else "≥"
    unit = "×" if verdict["ratio"] is not None else f" {verdict['unit']}"
    return f"{sign} {verdict['bar']:g}{unit}"


def outcome_of(verdict):
    """``met``, ``**missed**``, or nothing where there is no bar."""
    return {None: "", True: "met", False: "**missed**"}[verdict["met"]]


def verdict_table(rows):
    """The comparisons of all rows."""
    table = [["what", "ours", "peer", "peer's", "ratio", "bar", ""]]
    for row in rows.values():
        for entry in row["verdicts"]:
            unit = entry["unit"]
            table.append([
                entry["what"],
                f"{number(entry['ours'])} {unit}",
                entry["peer_name"] or "",
                f"{number(entry['peer'])} {unit}" if entry["peer"] is not None else "",
                f"{entry['ratio']:.2f}×" if entry["ratio"] is not None else "",
                bar_of(entry),
                outcome_of(entry),
            ])
    return table


def load_table(rows):
    """Every server under every load."""
    head = ["load", "who", "req/s", "spread", "MB/s", "p50 ms", "p99 ms"]
    head += ["req/CPU s", "server", "wrk", "rest"]
    table = [head]
    for row in rows.values():
        for name, load in row.get("loads", {}).items():
            spread = f"{number(load['rps_min'])} – {number(load['rps_max'])}"
            table.append([
                row["title"], name, number(load["rps"]), spread, number(load["mb_s"]),
                number(load["p50_ms"]), number(load["p99_ms"]), number(load["per_cpu"]),
                f"{load['server_cpu']:.0%}", f"{load['load_cpu']:.0%}",
                f"{load['others_cpu']:.0%}",
            ])
    return table


def fact_table(rows):
    """The single values."""
    facts = [fact for row in rows.values() for fact in row.get("facts", [])]
    return [["what", "value"]] + [[what, f"{number(value)} {unit}"] for what, value, unit in facts]


def aligned(table):
    """A table for a terminal."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)) for line in table]
    return "\n".join(line.rstrip() for line in lines)


def markdown(table):
    """A table for the page."""
    lines = ["| " + " | ".join(line) + " |" for line in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]])


def tables(rows, form):
    """``(title, table)`` of the tables that have lines."""
    found = [
        ("Ours against the others", verdict_table(rows)),
        ("Every server", load_table(rows)),
        ("Other values", fact_table(rows)),
    ]
    return [(title, form(table)) for title, table in found if len(table) > 1]


def text(about, rows):
    """The report for a terminal."""
    parts = [f"{about['machine']}\n{versions(about)}"]
    parts += [f"{title}\n\n{table}" for title, table in tables(rows, aligned)]
    return "\n\n".join(parts)


def versions(about):
    """One line."""
    return ", ".join(f"{name} {version}" for name, version in about["versions"].items())


def notes_of(page):
    """What was written by hand into the page and all that follows, or an empty place for it."""
    found = re.search(f"{re.escape(BEGIN)}.*", page, re.DOTALL)
    return found.group(0).rstrip() if found else f"{BEGIN}\n{END}"


def page(about, rows, settings, old_page):
    """The whole page; ``settings`` fill in the section about the method."""
    parts = [
        HEAD,
        f"{about['date']}, {about['machine']}; load average before: {about['load']:.2f}.\n",
        f"{versions(about)}.\n",
    ]
    parts += [f"## {title}\n\n{table}\n" for title, table in tables(rows, markdown)]
    parts += [METHOD.strip().format(**settings) + "\n", f"## Notes\n\n{notes_of(old_page)}\n"]
    return "\n".join(parts)
