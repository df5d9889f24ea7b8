"""The look of the page: one column of quiet type, in light, in dark and on paper."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fcfbf8; --panel: #f4f2ec; --ink: #1c1c1a; --soft: #625e56; --rule: #dbd7cd;
  --main: #1d5b93; --second: #b3481a; --third: #47731f; --raw: #9dbbd6; --wrong: #b3481a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15171a; --panel: #1d2024; --ink: #e9e6df; --soft: #a9a49a; --rule: #34383d;
    --main: #86b9ea; --second: #f19a60; --third: #a5cf78; --raw: #53779a; --wrong: #f19a60;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 68rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.55 Charter, "Bitstream Charter", "Iowan Old Style", "Source Serif 4", Cambria,
    Georgia, "Liberation Serif", serif;
  overflow-wrap: break-word;
}
h1, h2, h3 { font-weight: 600; line-height: 1.2; text-wrap: balance; }
h1 { font-size: clamp(1.6rem, 1.2rem + 2vw, 2.3rem); margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 {
  font-size: 1.25rem; margin: 3.2rem 0 .3rem; padding-top: .9rem;
  border-top: 1px solid var(--rule);
}
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 44rem; }
.soft, .note, figcaption { color: var(--soft); }
.note { font-style: italic; }
.eyebrow, .figures dt, th, .tick, .curves h3, .confusion text, figcaption, footer, .legend, .status,
table.plain td, table.classes td, .triple span {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
    "Liberation Sans", sans-serif;
}
.eyebrow { font-size: .8rem; color: var(--soft); margin: 0 0 .4rem; }
.lede { font-size: 1.08rem; max-width: 46rem; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; }
code { font-size: .88em; }
.status { display: inline-block; font-size: .85rem; margin: 0 0 .6rem; font-weight: 600; }

.figures {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  gap: 1.1rem 2rem; margin: 1.8rem 0 0; padding: 1.2rem 0 0; border-top: 2px solid var(--ink);
}
.figures dt { font-size: .8rem; color: var(--soft); }
.figures dd { margin: .1rem 0 0; font-size: 1.65rem; line-height: 1.2; }
.figures dd, .number, .example .score { font-variant-numeric: tabular-nums lining-nums; }
.figures small { display: block; font-size: .82rem; line-height: 1.4; color: var(--soft); }
.figures div:first-child dd { font-weight: 600; color: var(--main); }
.figures div:first-child small { font-weight: 400; }

.curves {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: 1.6rem 2.4rem; margin: 1.2rem 0 1rem;
}
figure { margin: 0; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--ink); font-size: 11.5px; }
svg .soft { fill: var(--soft); }
svg .end { text-anchor: end; }
svg .middle { text-anchor: middle; }
svg .strong {
  font-weight: 600; paint-order: stroke; stroke: var(--paper); stroke-width: 4px;
  stroke-linejoin: round;
}
.curves h3 { font-size: .88rem; margin: 0 0 .3rem; }
.curves .legend { margin: 0 0 .3rem; }
.curves figure { display: flex; flex-direction: column; }
svg.chart { margin-top: auto; }
svg.sample { display: inline-block; width: 1.75rem; height: .75rem; margin-right: .45rem; }
.grid { stroke: var(--rule); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke: var(--main); }
.line.raw { stroke: var(--raw); stroke-width: 1; }
.line.second { stroke: var(--second); stroke-dasharray: 6 3; }
.line.third { stroke: var(--third); stroke-dasharray: 2 3; }
.mark { fill: var(--main); stroke: var(--paper); stroke-width: 1; }
.mark.second { fill: var(--second); }
.mark.third { fill: var(--third); }
.best { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.resume { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 3; }
.resume-head { fill: var(--soft); }

.scroll { overflow-x: auto; margin: .8rem 0; padding-bottom: .3rem; }
table { border-collapse: collapse; font-size: .88rem; line-height: 1.35; }
th { font-weight: 500; text-align: left; }
thead th { color: var(--soft); font-size: .8rem; vertical-align: bottom; }
th, td { padding: .24rem .9rem .24rem 0; border-bottom: 1px solid var(--rule); }
thead th { border-bottom-color: var(--soft); }
tr > :last-child { padding-right: 0; }
.number { text-align: right; white-space: nowrap; }
td.soft { color: var(--soft); }
table.classes { width: 100%; min-width: 32rem; }
table.classes tbody th { white-space: nowrap; }
td.bar { width: 42%; min-width: 6rem; }
.track { display: block; height: .62rem; background: var(--panel); }
.track span { display: block; height: 100%; background: var(--main); }
tr.mean > * { font-weight: 600; border-bottom-color: var(--soft); }
.swatch {
  display: inline-block; width: .8em; height: .8em; margin-right: .55em; vertical-align: -.06em;
  border: 1px solid var(--soft);
}
.unseen {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap;
}
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; font-size: .82rem; margin: .8rem 0; }
.legend li { list-style: none; }
ul.legend { padding: 0; }

.side { display: flex; flex-wrap: wrap; gap: 0 2.5rem; align-items: flex-start; }
.side figure { flex: 0 1 37rem; max-width: 100%; min-width: 0; }
.side > div { max-width: 100%; }
.confusion rect.right { fill: var(--main); }
.confusion rect.wrong { fill: var(--wrong); }
.confusion rect.frame { fill: var(--panel); }
.confusion rect.absent { fill: var(--rule); }
.confusion text { font-size: 10.5px; }
.confusion .strong-cell { fill: var(--paper); font-weight: 600; }

.examples {
  display: grid; gap: 1.8rem 2.4rem; margin: .6rem 0 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
}
.example .triple { display: grid; grid-template-columns: repeat(3, 1fr); gap: .3rem; }
.example .triple span { display: block; text-align: center; }
.example img {
  display: block; width: 100%; height: 17rem; object-fit: contain;
}
.example figcaption, .triple span { font-size: .8rem; line-height: 1.4; }
.example figcaption { margin-top: .3rem; }
.example .score { color: var(--ink); font-weight: 600; }
@media (max-width: 34rem) {
  .example img { height: 11rem; }
  h2 { margin-top: 2.4rem; }
  .curves, .examples { gap: 1.4rem; }
  svg.chart text { font-size: 14.5px; }
}

details { margin: .8rem 0; }
summary { cursor: pointer; }
summary:focus-visible, .scroll:focus-visible {
  outline: 2px solid var(--main); outline-offset: 2px;
}
pre {
  overflow-x: auto; background: var(--panel); padding: .9rem 1rem; font-size: .78rem;
  line-height: 1.45;
}
footer { margin-top: 3.2rem; border-top: 1px solid var(--rule); padding-top: .8rem;
  font-size: .8rem; color: var(--soft); }
@media print {
  :root {
    color-scheme: light;
    --paper: #fff; --panel: #f6f5f1; --ink: #000; --soft: #4a4741; --rule: #cfcbc1;
    --main: #1d5b93; --second: #b3481a; --third: #47731f; --raw: #9dbbd6; --wrong: #b3481a;
  }
  @page { margin: 16mm 14mm; }
  body { font-size: 10pt; padding: 0; }
  h2 { break-after: avoid; }
  figure, .example, .figures > div, table.plain tr { break-inside: avoid; }
  .scroll { overflow: visible; }
  .curves, .examples { grid-template-columns: 1fr 1fr; }
  svg.confusion { min-width: 0 !important; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
