
// The axis of scores, 0 to 1 from end to end; logarithmic where a few scores would press all others into one bar.

const sorted = [...images.map((image) => image.score)].sort((a, b) => a - b);
const ends = [...sorted, about.threshold].sort((a, b) => a - b);
const [least, most] = [ends[0], ends[ends.length - 1]];
const isLogarithmic = least > 0 && most > 20 * ends[ends.length >> 1];
const [onAxis, offAxis] = isLogarithmic ? [Math.log, Math.exp] : [(x) => x, (x) => x];
const room = 0.03 * (onAxis(most) - onAxis(least)) || 0.03 * Math.abs(onAxis(most)) || 1;
const [from, to] = [onAxis(least) - room, onAxis(most) + room];
const placeOf = (score) => Math.min(1, Math.max(0, (onAxis(score) - from) / (to - from))) || 0;
const scoreAt = (place) => offAxis(from + place * (to - from));
const steps = [scoreAt(0), ...new Set(sorted)]; // from one to the next the decision on one score changes

function drawHistogram() {
  const bins = Array.from({ length: 48 }, () => new Map());
  for (const image of images) {
    const bin = bins[Math.min(47, Math.floor(placeOf(image.score) * 48))];
    bin.set(image.kind, (bin.get(image.kind) ?? 0) + 1);
  }
  const sizes = bins.map((bin) => [...bin.values()].reduce((a, b) => a + b, 0));
  const highest = Math.max(1, ...sizes);
  for (const bin of bins) {
    const column = make("div", { className: "bin" });
    for (const kind of kinds.filter((one) => bin.has(one))) {
      const part = make("div", { className: "part" });
      part.style.height = `${(100 * bin.get(kind)) / highest}%`;
      part.style.background = colorOf(kind);
      column.append(part);
    }
    byId("histogram").append(column);
  }
  const own = make("div", { className: "own" });
  own.style.left = `${100 * placeOf(about.threshold)}%`;
  const count = make("span", { className: "most", textContent: images.length ? `highest bar ${highest}` : "no images" });
  byId("histogram").append(own, make("div", { className: "at", id: "at" }), count);
  const tick = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, useGrouping: false });
  for (const place of [0, 0.25, 0.5, 0.75, 1]) {
    const label = make("span", { textContent: tick.format(scoreAt(place)) });
    label.style.left = `${100 * place}%`;
    byId("ticks").append(label);
  }
}

function writeNotes() {
  byId("notes").append(...about.notes.map((note) => make("p", { textContent: note })));
}

function drawCurves() {
  for (const { name, area, points } of about.curves) {
    const path = { d: "M" + points.map(([x, y]) => `${x},${(1 - y).toFixed(4)}`).join(" ") };
    const shapes = [["path", path]];
    if (name === "image ROC") shapes.push(["circle", { r: 0.035, id: "operating" }]);
    const caption = make("figcaption", { textContent: `${name} ${area.toFixed(3)}` });
    byId("curves").append(make("figure", {}, drawing("0 0 1 1", ...shapes), caption));
  }
}

const logFactorials = [0];
for (let i = 1; i <= Math.max(good.length, defective.length); i++) logFactorials.push(logFactorials[i - 1] + Math.log(i));

/** The chance of at least so many events among `count` cases, of a rate above 0 and below 1. */
function chanceOf(events, count, rate) {
  const [log, logRest] = [Math.log(rate), Math.log1p(-rate)];
  let chance = 0;
  for (let i = events; i <= count; i++) {
    const ways = logFactorials[count] - logFactorials[i] - logFactorials[count - i];
    chance += Math.exp(ways + i * log + (count - i) * logRest);
  }
  return chance;
}

/** The exact interval of a rate, by Clopper and Pearson, as `rate_interval` gives it. */
function rateInterval(events, count) {
  const rest = (1 - about.confidence) / 2;
  const rateWhere = (least, chance) => {
    let [low, high] = [0, 1];
    for (let i = 0; i < 30; i++) {
      const middle = (low + high) / 2;
      if (chanceOf(least, count, middle) < chance) low = middle;
      else high = middle;
    }
    return low;
  };
  return [events ? rateWhere(events, rest) : 0, events < count ? rateWhere(events + 1, 1 - rest) : 1];
}

function intervalText(events, count) {
  const [low, high] = rateInterval(events, count);
  return `${(100 * low).toFixed(1)} to ${percent(high, 1)} of all like them`;
}

/** Write all figures that depend on the threshold. */
function writeFigures() {
  const isOwn = settings.threshold === about.threshold;
  const alarms = good.filter(isCalled).length;
  const found = defective.filter(isCalled).length;
  const missed = defective.length - found;
  const called = images.filter(isCalled).length;
  const bothKnown = good.length > 0 && defective.length > 0;
  const rows = [["called defective", `${called} of ${images.length} (${percent(called, images.length)})`]];
  if (good.length) {
    const promise = isOwn && about.promised !== null ? [`at most ${percent(about.promised, 1)} promised`] : [];
    const notes = [intervalText(alarms, good.length), ...promise];
    rows.push(["false alarms", `${alarms} of ${good.length} (${percent(alarms, good.length)})`, ...notes]);
  }
  if (defective.length) {
    const text = `${found} of ${defective.length} (${percent(found, defective.length)})`;
    rows.push(["defects found", text, intervalText(found, defective.length)]);
  }
  if (bothKnown) {
    rows.push(["precision", percent(found, found + alarms)]);
    rows.push(["F1", ((2 * found) / (2 * found + alarms + missed)).toFixed(3)]);
  }
  const title = `at ${100 * about.confidence} % confidence`;
  byId("figures").replaceChildren(
    ...rows.flatMap(([name, value, ...notes]) => [
      make("dt", { textContent: name }),
      make("dd", {}, value, ...notes.map((note) => make("small", { textContent: note, title }))),
    ]),
  );
  byId("notes").hidden = !isOwn;
  const cells = byId("confusion").querySelectorAll("tr + tr td");
  const counts = [good.length - alarms, alarms, missed, found];
  cells.forEach((cell, i) => {
    const isError = (i === 1 || i === 2) && counts[i] > 0;
    cell.replaceChildren(make("span", { textContent: counts[i], className: isError ? "wrong" : "" }));
  });
  byId("summary").textContent = labelled
    ? `${alarms} false alarm${alarms === 1 ? "" : "s"}, ${missed} missed`
    : `${called} of ${images.length} called defective`;
  byId("operating")?.setAttribute("cx", alarms / good.length);
  byId("operating")?.setAttribute("cy", 1 - found / defective.length);

  for (const button of byId("kinds").children) {
    const ofKind = images.filter((image) => image.kind === button.kind);
    button.lastChild.textContent = `${ofKind.filter(isCalled).length} of ${ofKind.length}`;
  }
  const place = placeOf(settings.threshold);
  byId("at").style.left = `${100 * place}%`;
  byId("slider").value = place;
  byId("slider").setAttribute("aria-valuetext", written(settings.threshold));
  if (document.activeElement !== byId("number")) byId("number").value = Number(settings.threshold.toPrecision(6));
  byId("reset").disabled = isOwn;
  byId("histogram").ariaLabel = `Scores of ${images.length} images, threshold ${written(settings.threshold)}`;
}
