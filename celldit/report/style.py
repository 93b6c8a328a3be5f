"""The style sheet of a report: light and dark, wide and narrow, nothing fetched."""

from __future__ import annotations

__all__ = ["CSS"]

CSS = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #22262b; --soft: #5b6470;
  --line: #dfe3e8; --card: #f7f8fa; --mark: #b34700; --measured: #0072b2; --predicted: #d55e00; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --ink: #e4e7eb; --soft: #a2abb6; --line: #343b44; --card: #1b2026;
    --mark: #ff9a52; --measured: #56b4e9; --predicted: #ff8a3d; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere; }
p, ul { max-width: 46rem; margin: .5rem 0; overflow-wrap: anywhere; }
.verdict { font-size: 1.2rem; line-height: 1.45; max-width: 52rem; margin: .75rem 0 1rem; }
.soft { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; margin: .75rem 0; border: 1px solid var(--line); border-radius: 6px; }
.tall { max-height: 34rem; overflow-y: auto; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .88rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
tr:last-child > * { border-bottom: 0; }
th { font-weight: 600; }
thead th { position: sticky; top: 0; max-width: 15rem; overflow: hidden; text-overflow: ellipsis;
  background: var(--card); z-index: 1; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
  background: var(--paper); max-width: 15rem; overflow: hidden; text-overflow: ellipsis; }
thead th:first-child { background: var(--card); z-index: 2; }
table.text td, table.text thead th { text-align: left; }
table.text td { white-space: normal; min-width: 5rem; overflow-wrap: anywhere; }
.own { color: var(--mark); }
.pictures { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
figure { margin: 0; padding: .75rem; border: 1px solid var(--line); border-radius: 6px;
  min-width: 0; background: var(--paper); }
svg.plot { display: block; width: 100%; height: auto; max-width: 460px; margin: 0 auto;
  color: var(--ink); fill: currentColor; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: .9rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
@media (max-width: 600px) {
  main { padding: 1rem .8rem 3rem; }
  h1 { font-size: 1.3rem; }
  th:first-child, td:first-child { max-width: 10.5rem; }
  th, td { padding: .34rem .5rem; }
  .pictures { grid-template-columns: minmax(0, 1fr); }
}
@media print {
  :root { --paper: #ffffff; --ink: #000000; --soft: #444444; --line: #bbbbbb; --card: #ffffff;
    --mark: #8a3600; --measured: #0072b2; --predicted: #d55e00; }
  main { max-width: none; padding: 0; }
  .tall { max-height: none; overflow: visible; }
  .scroll { overflow: visible; border: 0; }
  table { font-size: .72rem; }
  th, td { padding: .2rem .35rem; }
  thead th, th:first-child, td:first-child { position: static; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""
