
"use strict";

const byId = (id) => document.getElementById(id);
const about = JSON.parse(byId("about").textContent); // {threshold, promised, confidence, notes, curves, …}
const images = JSON.parse(byId("images").textContent); // [{name, link, kind, score, size, thumbnail, heat, …}, …]

const kinds = [...new Set(images.map((image) => image.kind))].sort((a, b) => (b === "good") - (a === "good"));
const COLORS = ["#d9772b", "#7d63b8", "#2e86c1", "#c9a20c", "#c7417b", "#8a6d5b", "#5fa8a0", "#8c8f96"];
const colorOf = (kind) =>
  kind === null ? "var(--quiet)" : kind === "good" ? "var(--good)" : COLORS[kinds.indexOf(kind) % COLORS.length];

const good = images.filter((image) => image.kind === "good");
const defective = images.filter((image) => image.kind !== "good" && image.kind !== null);
const labelled = good.length + defective.length > 0;

// What the page is set to, and what the part of its address after # says of it. No kind chosen means all.
const settings = { threshold: about.threshold, show: "all", sort: "high", kinds: new Set() };

const isCalled = (image) => image.score > settings.threshold;
const isWrong = (image) => image.kind !== null && isCalled(image) !== (image.kind !== "good");
const margin = (image) => (image.kind === "good" ? 1 : -1) * (image.score - settings.threshold); // how wrong

const SHOWN = {
  all: () => true,
  called: isCalled,
  passed: (image) => !isCalled(image),
  false: (image) => isCalled(image) && isWrong(image),
  missed: (image) => !isCalled(image) && isWrong(image),
};
const ORDERS = {
  high: (a, b) => b.score - a.score,
  low: (a, b) => a.score - b.score,
  wrong: (a, b) => margin(b) - margin(a),
};

function verdictOf(image) {
  if (image.kind === null) return isCalled(image) ? "defective" : "normal";
  if (image.kind === "good") return isCalled(image) ? "false alarm" : "passed";
  return isCalled(image) ? "found" : "missed";
}

const shortly = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, useGrouping: false });
const written = (number) => shortly.format(number);
const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");

/** Make an element with properties, which are never parsed as HTML, and children. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function drawing(viewBox, ...shapes) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", viewBox);
  svg.setAttribute("preserveAspectRatio", "none");
  for (const [tag, attributes] of shapes) {
    const shape = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    svg.append(shape);
  }
  return svg;
}
