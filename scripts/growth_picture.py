#!/usr/bin/env python3
"""Draws docs/growth.svg from the tables of transitions in docs/growth.md: what the busiest rank receives, in how many messages, and
for how long, against the number of ranks. Dashed: one exchange where the planner goes axis by axis."""
import pathlib
import re

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"


def read_tables():
    """Name of a transition -> rows of numbers: ranks, three of one exchange, steps, three of the plan."""
    text = (DOCS / "growth.md").read_text()
    text = text[text.index("<!-- transitions: generated -->"):text.index("<!-- transitions: end -->")]
    tables = {}
    for part in text.split("### ")[1:]:
        name, _, body = part.partition("\n")
        rows = []
        for line in body.splitlines():
            if re.match(r"\| \d", line):
                cells = [cell.strip() for cell in line.strip("|").split("|")]
                rows.append([float(cell) for i, cell in enumerate(cells) if i != 1])
        tables[name.replace("->", "\N{RIGHTWARDS ARROW}")] = rows
    return tables


def main():
    matplotlib.rcParams.update({"svg.hashsalt": "growth", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 8})
    figure, panels = plt.subplots(1, 3, figsize=(11, 4.2))
    tables = read_tables()
    for panel, (title, column) in zip(panels, [("bytes received", 0), ("messages", 1), ("ms", 2)]):
        for name, rows in tables.items():
            ranks = [row[0] for row in rows]
            (line,) = panel.plot(ranks, [row[5 + column] for row in rows], marker="o", markersize=2.5, label=name)
            if any(row[4] > 1 for row in rows):
                panel.plot(ranks, [row[1 + column] for row in rows], linestyle="--", linewidth=1, color=line.get_color())
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("ranks")
        panel.set_title(title)
        panel.grid(True, which="major", linewidth=0.3)
        panel.minorticks_off()
    handles, labels = panels[0].get_legend_handles_labels()
    handles.append(plt.Line2D([], [], linestyle="--", linewidth=1, color="gray"))
    labels.append("one exchange")
    figure.legend(handles, labels, loc="lower center", ncol=4, frameon=False)
    figure.suptitle("Redistributing 4 MB a rank, as the busiest rank sees it")
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(DOCS / "growth.svg", metadata={"Date": None, "Creator": None})
    print("growth: docs/growth.svg is drawn")


if __name__ == "__main__":
    main()
