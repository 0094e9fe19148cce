"use strict";
const at = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let waiting = [], current = null, size = { rows: 1, columns: 1, frames: 1 }, boxes = [], chosen = -1, busy = false, seen = false, drag = null;

function say(text, kind) {
  const said = at("said");
  said.textContent = text;
  said.className = "box " + (kind || "");
  said.hidden = !text;
}

async function ask(path, options) {
  let answer;
  try { answer = await fetch(path, options); } catch { throw new Error("The command on this machine does not answer. Is it still running?"); }
  if (!answer.ok) {
    const text = await answer.text();
    let told = null;
    try { told = JSON.parse(text); } catch { /* not one of ours */ }
    throw new Error(told ? told.rule + ". " + told.remedy + "." : text);
  }
  return answer;
}

async function load(keep) {
  waiting = await (await ask("waiting")).json();
  at("count").textContent = waiting.length === 1 ? "1 image" : waiting.length + " images";
  at("none").hidden = waiting.length > 0;
  at("desk").hidden = waiting.length === 0;
  const list = at("list");
  list.replaceChildren();
  for (const one of waiting) {
    const item = document.createElement("li"), button = document.createElement("button");
    const thumb = document.createElement("img"), code = document.createElement("div"), more = document.createElement("small");
    thumb.loading = "lazy"; thumb.alt = "";
    thumb.src = "picture/" + one.id + "?side=160";
    code.textContent = one.code.replace("review-", "").replaceAll("-", " ");
    more.textContent = one.modality + " · " + one.days_left + (one.days_left === 1 ? " day left" : " days left");
    button.type = "button"; button.dataset.id = one.id;
    button.append(thumb, code, more);
    button.addEventListener("click", () => open(one.id));
    item.append(button);
    list.append(item);
  }
  const next = waiting.find((one) => one.id === keep) || waiting[0];
  current = null;
  if (next) await open(next.id);
}

async function open(id) {
  if (busy) return;
  const one = waiting.find((other) => other.id === id);
  current = one;
  boxes = one.boxes.map((box) => ({ box: box.slice(), own: false }));
  chosen = -1;
  for (const button of at("list").querySelectorAll("button")) button.setAttribute("aria-current", String(button.dataset.id === id));
  at("title").textContent = one.modality + ": " + one.code.replace("review-", "").replaceAll("-", " ");
  at("why").textContent = one.rule + " · " + one.id;
  at("frame").value = one.boxes.length ? one.boxes[0][0] : 0;
  at("view").value = "display";
  shown(null, "");  // the picture before it must not stand above this one's name
  await show();
}

async function show() {
  const id = current.id;
  let answer;
  try {
    answer = await ask("picture/" + id + "?frame=" + at("frame").value + "&view=" + at("view").value);
  } catch (error) {
    if (current && current.id === id) shown(null, error.message);
    return;
  }
  const picture = new Uint8Array(await answer.arrayBuffer());
  if (!current || current.id !== id) return;
  for (const key of ["rows", "columns", "frames"]) size[key] = Number(answer.headers.get("x-" + key));
  at("frame").max = size.frames - 1;
  at("frame").value = answer.headers.get("x-frame");
  const image = new Image();
  image.src = URL.createObjectURL(new Blob([picture], { type: "image/png" }));
  await image.decode();
  if (current && current.id === id) shown(image.src, "");
}

function shown(address, trouble) {
  seen = Boolean(address);
  at("stage").dataset.shows = seen ? current.id : "";
  at("image").hidden = !address;
  at("broken").hidden = !trouble;
  at("broken").textContent = trouble;
  if (address) {
    URL.revokeObjectURL(at("image").src);
    at("image").src = address;
  }
  const several = address && size.frames > 1;
  at("frames").hidden = at("every").hidden = !several;
  at("at").textContent = Number(at("frame").value) + 1 + " of " + size.frames;
  for (const id of ["add", "accept"]) at(id).disabled = !seen;
  draw();
}

function frame() { return Number(at("frame").value); }
function here(entry) { return entry.box[0] === frame() || (size.frames > 1 && at("all").checked); }

function draw() {
  const over = at("over");
  over.setAttribute("viewBox", "0 0 " + size.columns + " " + size.rows);
  over.setAttribute("preserveAspectRatio", "xMidYMid meet");
  over.replaceChildren();
  const list = at("boxes");
  list.replaceChildren();
  boxes.forEach((entry, number) => {
    const [, top, left, bottom, right] = entry.box;
    const words = (size.frames > 1 && !at("all").checked ? "frame " + (entry.box[0] + 1) + ", " : "") + "rows " + top + "–" + bottom + ", columns " + left + "–" + right;
    if (here(entry)) {
      const rect = document.createElementNS(SVG, "rect");
      rect.setAttribute("x", left); rect.setAttribute("y", top);
      rect.setAttribute("width", right - left); rect.setAttribute("height", bottom - top);
      rect.setAttribute("tabindex", "0"); rect.setAttribute("role", "button");
      rect.setAttribute("aria-label", "Box " + (number + 1) + ": " + words);
      rect.setAttribute("class", (entry.own ? "own" : "found") + (number === chosen ? " chosen" : ""));
      rect.dataset.number = number;
      rect.addEventListener("focus", () => { chosen = number; });
      over.append(rect);
    }
    const item = document.createElement("li"), text = document.createElement("span"), button = document.createElement("button");
    text.textContent = (entry.own ? "yours: " : "found: ") + words;
    button.type = "button"; button.textContent = "Remove";
    button.setAttribute("aria-label", "Remove box " + (number + 1));
    button.addEventListener("click", () => remove(number));
    item.append(text, button);
    list.append(item);
  });
  at("nobox").hidden = boxes.length > 0;
  at("blank").disabled = busy || boxes.length === 0 || !seen;
}

function remove(number) { boxes.splice(number, 1); chosen = -1; draw(); }

function choose(number) {
  chosen = number;
  draw();
  const rect = at("over").querySelector('rect[data-number="' + number + '"]');
  if (rect) rect.focus();
}

function put(top, left, bottom, right) {
  boxes.push({ box: [frame(), top, left, bottom, right], own: true });
  choose(boxes.length - 1);
}

function add() {
  const high = Math.max(2, Math.round(size.rows / 10)), wide = Math.max(2, Math.round(size.columns / 4));
  const top = Math.round((size.rows - high) / 2), left = Math.round((size.columns - wide) / 2);
  put(top, left, top + high, left + wide);
}

const clip = (value, low, high) => Math.min(Math.max(value, low), high);

function point(event) {
  const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(at("over").getScreenCTM().inverse());
  return [clip(place.y, 0, size.rows), clip(place.x, 0, size.columns)];
}

function nudge(entry, key, sizing) {
  const step = Math.max(1, Math.round(Math.max(size.rows, size.columns) / 200));
  const down = { ArrowUp: -step, ArrowDown: step }[key] || 0, over = { ArrowLeft: -step, ArrowRight: step }[key] || 0;
  const [number, top, left, bottom, right] = entry.box;
  if (sizing) {
    entry.box = [number, top, left, clip(bottom + down, top + 1, size.rows), clip(right + over, left + 1, size.columns)];
  } else {
    const y = clip(top + down, 0, size.rows - (bottom - top)), x = clip(left + over, 0, size.columns - (right - left));
    entry.box = [number, y, x, y + bottom - top, x + right - left];
  }
}

function chosenBoxes() {
  const every = size.frames > 1 && at("all").checked;
  const frames = every ? [...Array(size.frames).keys()] : null;
  return boxes.flatMap((entry) => (frames || [entry.box[0]]).map((number) => [number, ...entry.box.slice(1)]));
}

async function decide(action, reason) {
  if (busy || !current || (!seen && action !== "refuse")) return;
  if (!at("note").checkValidity()) { say("The note is made of a-z, 0-9 and hyphen.", "harm"); at("note").focus(); return; }
  busy = true;
  document.body.classList.add("busy");
  for (const id of ["blank", "accept", "refuse"]) at(id).disabled = true;
  say(action === "refuse" ? "Removing it …" : "Taking it in: de-identified, scanned, judged …");
  const id = current.id;
  let keep = "";
  try {
    const body = JSON.stringify({ id, action, boxes: action === "blank" ? chosenBoxes() : [], reason, note: at("note").value });
    const done = await (await ask("decide", { method: "POST", headers: { "Content-Type": "application/json" }, body })).json();
    if (done.state === "accepted") say(id + " is taken in." + (done.boxes.length ? " What was boxed is blanked." : ""), "good");
    else if (done.state === "discarded") say(id + " is removed. A mistake? consilium-site quarantine discard " + id + " --undo, then send it again.", "subset");
    else { say(id + " stays: " + done.rule + ". " + done.remedy + ".", "harm"); keep = id; }
  } catch (error) {
    say(error.message, "harm");
    keep = id;
  }
  busy = false;
  document.body.classList.remove("busy");
  at("refuse").disabled = false;
  await load(keep).catch((error) => say(error.message, "harm"));
}

const over = at("over");
over.addEventListener("pointerdown", (event) => {
  if (event.button || !seen) return;
  const number = event.target.dataset ? event.target.dataset.number : undefined;
  if (number !== undefined) { choose(Number(number)); return; }
  drag = point(event);
  over.setPointerCapture(event.pointerId);
  event.preventDefault();
});
over.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const [y, x] = point(event);
  let rect = over.querySelector("rect.drawing");
  if (!rect) { rect = document.createElementNS(SVG, "rect"); rect.setAttribute("class", "own drawing"); over.append(rect); }
  rect.setAttribute("x", Math.min(x, drag[1])); rect.setAttribute("y", Math.min(y, drag[0]));
  rect.setAttribute("width", Math.abs(x - drag[1])); rect.setAttribute("height", Math.abs(y - drag[0]));
});
over.addEventListener("pointerup", (event) => {
  if (!drag) return;
  const [y, x] = point(event), [y0, x0] = drag;
  drag = null;
  const box = [Math.floor(Math.min(y, y0)), Math.floor(Math.min(x, x0)), Math.ceil(Math.max(y, y0)), Math.ceil(Math.max(x, x0))];
  if (box[2] - box[0] >= 2 && box[3] - box[1] >= 2) put(...box); else draw();
});
over.addEventListener("pointercancel", () => { drag = null; draw(); });

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const entry = event.target.dataset && event.target.dataset.number !== undefined ? boxes[Number(event.target.dataset.number)] : null;
  if (entry && event.key.startsWith("Arrow")) {
    nudge(entry, event.key, event.shiftKey);
    choose(Number(event.target.dataset.number));
    event.preventDefault();
  } else if (entry && (event.key === "Delete" || event.key === "Backspace")) {
    remove(Number(event.target.dataset.number));
    event.preventDefault();
  } else {
    const button = { n: "add", b: "blank", a: "accept", r: "refuse" }[event.key];
    if (button === "add") at(button).click();
    else if (button) at(button).focus();  // Enter does it: no single key lets an image in or removes it
  }
});

at("add").addEventListener("click", add);
at("view").addEventListener("change", show);
at("frame").addEventListener("input", show);
at("all").addEventListener("change", draw);
at("blank").addEventListener("click", () => decide("blank", "blanked"));
at("accept").addEventListener("click", () => decide("accept", at("why-accept").value));
at("refuse").addEventListener("click", () => decide("refuse", at("why-refuse").value));
load("").catch((error) => say(error.message, "harm"));
