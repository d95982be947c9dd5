
// The gallery: cards are made when first seen, kept, and put in order anew; more of them whenever its end is in sight.

const AT_ONCE = 60;
const cards = new Map();
let chosen = []; // the images shown, in order
let cardCount = AT_ONCE;

/** Lay image, heat map and outline over each other. */
function pictureOf(image, isLarge = false) {
  const picture = make("span", { className: "picture" });
  const [height, width] = image.size;
  picture.style.aspectRatio = `${width} / ${height}`;
  picture.style.width = isLarge ? `min(100%, ${(70 * width) / height}vh)` : `${100 * Math.min(1, width / height)}%`;
  picture.append(make("img", { src: image.thumbnail, alt: "", decoding: "async" }));
  if (isLarge) {
    const full = make("img", { src: image.link, alt: image.name });
    full.onerror = () => full.remove(); // a format that no browser shows, or no longer there: the thumbnail is below it
    picture.append(full);
  }
  return picture;
}

function heatOf(image) {
  const layers = [];
  if (image.heat) layers.push(make("img", { src: image.heat, alt: "", className: "heat", decoding: "async" }));
  if (image.outline) {
    layers.push(drawing("0 0 1 1", ["path", { d: image.outline }]));
    layers[layers.length - 1].classList.add("truth");
  }
  return layers;
}

function cardOf(image) {
  if (!cards.has(image)) {
    const picture = pictureOf(image);
    picture.append(...heatOf(image));
    const note = make("span", { className: "note" }, make("b"), ` ${written(image.score)} ${image.kind ?? ""}`);
    const name = make("span", { className: "name", textContent: image.name, title: image.name });
    const card = make("button", { className: "card" }, make("span", { className: "cell" }, picture), name, note);
    card.onclick = () => look(image);
    cards.set(image, make("li", {}, card));
  }
  return cards.get(image);
}

function writeVerdicts() {
  for (const image of chosen.slice(0, cardCount)) {
    const card = cardOf(image).firstChild;
    card.classList.toggle("wrong", isWrong(image));
    card.querySelector("b").textContent = verdictOf(image);
  }
}

function arrangeGallery() {
  const isOfKind = (image) => settings.kinds.size === 0 || settings.kinds.has(image.kind);
  const next = images.filter((image) => isOfKind(image) && SHOWN[settings.show](image)).sort(ORDERS[settings.sort]);
  const isSame = next.length === chosen.length && next.every((image, i) => image === chosen[i]);
  chosen = next;
  if (!isSame || byId("gallery").childElementCount === 0) showCards();
  writeVerdicts();
  byId("count").textContent = `${chosen.length} of ${images.length} images`;
}

function showCards() {
  const shown = chosen.slice(0, cardCount).map(cardOf);
  const nothing = make("li", { className: "nothing", textContent: "No such images." });
  byId("gallery").replaceChildren(...(shown.length ? shown : [nothing]));
  watchEnd();
}

function showMore() {
  if (cardCount >= chosen.length) return;
  byId("gallery").append(...chosen.slice(cardCount, cardCount + AT_ONCE).map(cardOf));
  cardCount += AT_ONCE;
  writeVerdicts();
  watchEnd();
}

const watcher = new IntersectionObserver(([end]) => end.isIntersecting && showMore(), { rootMargin: "800px" });

/** Ask to be told anew: an end that stays in sight while cards come is told of but once. */
function watchEnd() {
  watcher.unobserve(byId("end"));
  watcher.observe(byId("end"));
}

/** Move the focus among the cards by arrow keys. */
function moveFocus(event) {
  const items = [...byId("gallery").children];
  const now = items.indexOf(document.activeElement.closest("li"));
  const columns = items.filter((item) => item.offsetTop === items[0].offsetTop).length;
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  if (now < 0 || !by) return;
  items[now + by]?.firstChild.focus();
  event.preventDefault();
}

// One image at full size.

let looked = null;

function look(image) {
  looked = image;
  const link = (...layers) => make("a", { href: image.link, target: "_blank", rel: "noopener" }, ...layers);
  const figures = [make("figure", {}, link(pictureOf(image, true)), make("figcaption", { textContent: "image" }))];
  if (image.heat || image.outline) {
    const picture = pictureOf(image, true);
    picture.append(...heatOf(image));
    const parts = [image.heat && "heat map", image.outline && "true defects outlined"].filter(Boolean);
    figures.push(make("figure", {}, link(picture), make("figcaption", { textContent: parts.join(", ") })));
  }
  byId("pictures").replaceChildren(...figures);
  byId("large-name").textContent = `${image.name}: ${verdictOf(image)}`;
  const told = [["kind", image.kind], ["score", `${written(image.score)}, threshold ${written(settings.threshold)}`]];
  told.push(["size", `${image.size[1]} × ${image.size[0]} px`], ...Object.entries(image.details));
  const rows = told.filter(([, value]) => value !== null).map(([name, value]) => [name, document.createTextNode(value)]);
  const file = make("a", { href: image.link, textContent: image.path, target: "_blank", rel: "noopener" });
  byId("details").replaceChildren(
    ...[...rows, ["file", file]].flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", {}, value)]),
  );
  if (!byId("large").open) byId("large").showModal();
}

function lookAtNeighbour(by) {
  const next = chosen[chosen.indexOf(looked) + by];
  if (next) look(next);
}

function endLook() {
  byId("large").close();
}
