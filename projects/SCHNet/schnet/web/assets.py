"""The page's own markup, style and script: a photo whose parts are named where one points."""

from __future__ import annotations

VIEWER = """
<div class="viewer">
  <figure>
    <div class="stage" hidden><canvas></canvas><output class="tip" hidden></output></div>
    <figcaption></figcaption>
  </figure>
  <table hidden>
    <caption>Parts, and their share of the photo</caption>
    <tbody></tbody>
  </table>
</div>
"""

VIEWER_STYLE = """
.viewer { display: grid; grid-template-columns: minmax(0, 1fr) 17rem; gap: 1.5rem; }
figure { margin: 0; min-width: 0; }
.stage { position: relative; width: fit-content; max-width: 100%; margin: 0 auto; }
canvas { display: block; max-width: 100%; max-height: 76vh; cursor: crosshair; }
.tip {
  position: absolute; pointer-events: none; white-space: nowrap; z-index: 2; padding: .2rem .55rem;
  border-radius: .3rem; background: #1c1c1a; color: #fff; font-size: .9rem; line-height: 1.4;
}
figcaption { margin-top: .5rem; color: var(--body-text-color-subdued); font-size: .85rem; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; align-self: start; margin: 0; }
caption {
  text-align: left; color: var(--body-text-color-subdued); font-size: .85rem; padding-bottom: .4rem;
}
tr { border-bottom: 1px solid var(--border-color-primary); }
td { padding: 0; border: 0; }
tr.pointed { background: var(--background-fill-secondary); }
button {
  display: flex; align-items: center; gap: .6rem; width: 100%; padding: .4rem .3rem; border: 0;
  background: none; color: inherit; font: inherit; text-align: left; cursor: pointer;
}
button:focus-visible { outline: 2px solid var(--color-accent); outline-offset: -2px; }
button i { width: .9em; height: .9em; flex: none; border: 1px solid #8886; border-radius: 2px; }
td.percent { text-align: right; padding-right: .3rem; font-variant-numeric: tabular-nums; }
[hidden] { display: none; }
@media (max-width: 52rem) {
  .viewer { grid-template-columns: minmax(0, 1fr); gap: 1rem; }
  canvas { max-height: 62vh; }
}
"""

VIEWER_SCRIPT = """
// 0.6 is `Parsing.overlay`'s; the parts that are not pointed at step back.
const STRONG = 0.6, WEAK = 0.12;
let shown = null;

function decode(value) {
  const labels = new Uint8Array(value.width * value.height);
  let at = 0;
  for (let i = 0; i < value.runs.length; i += 2) {
    labels.fill(value.runs[i], at, at + value.runs[i + 1]);
    at += value.runs[i + 1];
  }
  return labels;
}

function rgb(color) {
  return [1, 3, 5].map(i => parseInt(color.slice(i, i + 2), 16));
}

function paint(pointed) {
  const { canvas, photo, labels, parts, width, height } = shown;
  const context = canvas.getContext("2d");
  const layer = new ImageData(width, height);
  const words = new Uint32Array(layer.data.buffer);
  const table = new Uint32Array(256);
  const bytes = new Uint8Array(table.buffer);
  for (const part of parts) {
    if (!part.color) continue;
    const strength = pointed === null || pointed === part.label ? STRONG : WEAK;
    bytes.set([...rgb(part.color), Math.round(255 * strength)], 4 * part.label);
  }
  for (let i = 0; i < labels.length; i++) words[i] = table[labels[i]];
  const sheet = document.createElement("canvas");
  sheet.width = width;
  sheet.height = height;
  sheet.getContext("2d").putImageData(layer, 0, 0);
  context.drawImage(photo, 0, 0, width, height);
  context.drawImage(sheet, 0, 0);
}

function point(label) {
  if (!shown || shown.pointed === label) return;
  shown.pointed = label;
  paint(shown.parts.some(part => part.label === label && part.color) ? label : null);
  for (const row of element.querySelectorAll("tr"))
    row.classList.toggle("pointed", Number(row.dataset.label) === label);
}

function follow(event) {
  const box = shown.canvas.getBoundingClientRect();
  const x = Math.floor((event.clientX - box.left) / box.width * shown.width);
  const y = Math.floor((event.clientY - box.top) / box.height * shown.height);
  if (x < 0 || y < 0 || x >= shown.width || y >= shown.height) return leave();
  const label = shown.labels[y * shown.width + x];
  const tip = element.querySelector(".tip");
  tip.textContent = shown.parts.find(part => part.label === label).name;
  tip.hidden = false;
  const left = event.clientX - box.left, top = event.clientY - box.top;
  tip.style.left = Math.max(0, Math.min(left + 12, box.width - tip.offsetWidth)) + "px";
  tip.style.top = (top > 48 ? top - 40 : top + 20) + "px";
  point(label);
}

function leave() {
  element.querySelector(".tip").hidden = true;
  point(null);
}

function fill(value) {
  const body = element.querySelector("tbody");
  body.replaceChildren();
  for (const part of value.parts) {
    const row = body.insertRow(), button = document.createElement("button");
    row.dataset.label = part.label;
    const swatch = document.createElement("i");
    swatch.style.background = part.color || "transparent";
    button.type = "button";
    button.append(swatch, part.name);
    row.insertCell().append(button);
    const percent = row.insertCell();
    percent.className = "percent";
    percent.textContent = part.percent;
    row.addEventListener("pointerenter", () => point(part.label));
    row.addEventListener("pointerleave", () => point(null));
    button.addEventListener("focus", () => point(part.label));
    button.addEventListener("blur", () => point(null));
  }
}

function show() {
  const value = props.value;
  const stage = element.querySelector(".stage"), table = element.querySelector("table");
  const caption = element.querySelector("figcaption");
  shown = null;
  stage.hidden = table.hidden = true;
  caption.textContent = "";
  if (!value || !value.runs) return;
  const photo = new Image();
  photo.onload = () => {
    if (props.value !== value) return;
    const canvas = stage.querySelector("canvas");
    canvas.width = value.width;
    canvas.height = value.height;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", value.name + " with its parts; the table lists them");
    canvas.onpointermove = canvas.onpointerdown = follow;
    canvas.onpointerleave = event => { if (event.pointerType === "mouse") leave(); };
    shown = { canvas, photo, labels: decode(value), pointed: null, ...value };
    shown.photo = photo;
    paint(null);
    fill(value);
    caption.textContent = value.name + ", " + value.size.join(" \\u00d7 ")
      + " pixels. Point at a part, or tap it, to read its name.";
    stage.hidden = table.hidden = false;
  };
  photo.src = value.photo;
}

watch("value", show);
show();
"""

PAGE_STYLE = """
:root { --body-text-color-subdued: #625e56; }
.dark { --body-text-color-subdued: #a9a49a; }
#viewer .html-container, .schnet-title .html-container, #message .html-container { padding: 0; }
.gradio-container {
  width: 100% !important; max-width: 72rem !important; margin: 0 auto !important;
}
.schnet-title h1 { font-size: 1.5rem; font-weight: 600; margin: .4rem 0 .1rem; }
.schnet-title p { margin: 0; color: var(--body-text-color-subdued); }
.schnet-message {
  margin: 0; padding: .7rem .9rem; border-left: 3px solid #b3481a;
  background: var(--background-fill-secondary); overflow-wrap: anywhere;
}
"""
