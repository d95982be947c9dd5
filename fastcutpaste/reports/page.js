
// What is set, and where it comes from.

let frame = 0;

/** Bring the whole page to what is set, once a frame however often it is asked. */
function refresh() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    writeFigures();
    arrangeGallery();
  });
}

/** Take what the address says after #; the rest is as the page begins. */
function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  const threshold = Number(said.get("threshold") || NaN);
  settings.threshold = Number.isFinite(threshold) ? threshold : about.threshold;
  settings.show = Object.hasOwn(SHOWN, said.get("show")) ? said.get("show") : "all";
  settings.sort = Object.hasOwn(ORDERS, said.get("sort")) ? said.get("sort") : "high";
  settings.kinds = new Set(said.getAll("kind").filter((kind) => kinds.includes(kind)));
  writeChoices();
  refresh();
}

/** Say in the address what is set, so that it can be kept and sent. */
function writeAddress() {
  const said = new URLSearchParams();
  if (settings.threshold !== about.threshold) said.set("threshold", settings.threshold);
  if (settings.show !== "all") said.set("show", settings.show);
  if (settings.sort !== "high") said.set("sort", settings.sort);
  for (const kind of settings.kinds) said.append("kind", kind);
  history.replaceState(null, "", `#${said}`);
}

function writeChoices() {
  byId("show").value = settings.show;
  byId("sort").value = settings.sort;
  for (const button of byId("kinds").children) button.ariaPressed = settings.kinds.has(button.kind);
}

/** Set the threshold. The address is written when the hand rests: browsers allow but so many changes of it a minute. */
function setThreshold(threshold) {
  settings.threshold = threshold;
  refresh();
}

/** Choose other images, or another order: the gallery begins anew. */
function choose(changes) {
  Object.assign(settings, changes);
  cardCount = AT_ONCE;
  writeChoices();
  writeAddress();
  refresh();
}

/** Move the threshold by so many scores: each step changes what one of them is called. */
function step(by) {
  const above = steps.findIndex((score) => score > settings.threshold);
  const next = above < 0 ? steps.length : above;
  const isAt = steps[next - 1] === settings.threshold;
  const target = by > 0 ? next + by - 1 : next + by - (isAt ? 1 : 0);
  setThreshold(steps[Math.min(steps.length - 1, Math.max(0, target))]);
}

function makeKindButtons() {
  if (kinds.length < 2) return;
  for (const kind of kinds) {
    const swatch = make("i");
    swatch.style.background = colorOf(kind);
    const texts = [make("span", { textContent: kind ?? "unknown" }), make("small")];
    const button = make("button", { kind, title: "called defective; click to see only this kind" }, swatch, ...texts);
    button.onclick = () => {
      const next = new Set(settings.kinds);
      if (!next.delete(kind)) next.add(kind);
      choose({ kinds: next });
    };
    byId("kinds").append(button);
  }
}

const KEYS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
byId("slider").oninput = () => setThreshold(scoreAt(Number(byId("slider").value)));
byId("slider").onchange = byId("slider").onkeyup = byId("number").onchange = writeAddress;
byId("slider").onkeydown = (event) => {
  if (!(event.key in KEYS) || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  step(KEYS[event.key]);
};
byId("number").oninput = () => Number.isFinite(byId("number").valueAsNumber) && setThreshold(byId("number").valueAsNumber);
byId("number").onblur = refresh;
byId("reset").textContent = `back to ${written(about.threshold)}`;
byId("reset").onclick = () => choose({ threshold: about.threshold });
byId("show").onchange = () => choose({ show: byId("show").value });
byId("sort").onchange = () => choose({ sort: byId("sort").value });
byId("heats").onchange = () => byId("gallery").classList.toggle("heats", byId("heats").checked);
byId("gallery").onkeydown = moveFocus;
byId("previous").onclick = () => lookAtNeighbour(-1);
byId("next").onclick = () => lookAtNeighbour(1);
byId("close").onclick = endLook;
byId("large").onclick = (event) => event.target === byId("large") && endLook(); // beside it
byId("large").onkeydown = (event) => {
  if (event.key === "ArrowRight" || event.key === "ArrowLeft") lookAtNeighbour(event.key === "ArrowRight" ? 1 : -1);
};
window.onhashchange = readAddress;

byId("confusion").hidden = !labelled;
byId("heat-label").hidden = !images.some((image) => image.heat);
for (const option of document.querySelectorAll("option")) {
  option.hidden = option.disabled = !labelled && ["false", "missed", "wrong"].includes(option.value);
}
byId("heats").checked = matchMedia("(hover: none)").matches; // a finger cannot hover
byId("heats").onchange();
byId("more").open = matchMedia("(min-width: 60rem)").matches;
makeKindButtons();
drawHistogram();
drawCurves();
writeNotes();
readAddress();
