"""Write the table of published methods in docs/evaluation.md from docs/results/peers.json.

    celldit benchmark --method cellflow --method scgen --peers environments --output peers
    cp peers/benchmark.json docs/results/peers.json
    cp peers/benchmark.csv docs/results/peers.csv
    python notebooks/peers_table.py
"""

from __future__ import annotations

from pathlib import Path

from celldit.evaluation.benchmark import merge_results, render_table

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- peers:begin -->", "<!-- peers:end -->"

if __name__ == "__main__":
    page, results = ROOT / "docs" / "evaluation.md", ROOT / "docs" / "results"
    head, _, rest = page.read_text(encoding="utf-8").partition(START)
    table = render_table(merge_results(results / "peers.json", results / "benchmark.json"))
    page.write_text(f"{head}{START}\n{table}{END}{rest.partition(END)[2]}", encoding="utf-8")
