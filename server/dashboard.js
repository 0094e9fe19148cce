"use strict";
// Text goes into the page as text only: nothing here makes markup out of a value.
const EVERY_MS = 2000;
const byId = (id) => document.getElementById(id);

function cell(row, text, kind) {
  const made = document.createElement("td");
  made.textContent = text;
  if (kind) made.className = kind;
  row.append(made);
  return made;
}

function rows(table, lines) {
  const body = document.createElement("tbody");
  for (const line of lines) {
    const row = document.createElement("tr");
    for (const [text, kind] of line) cell(row, text, kind);
    body.append(row);
  }
  table.tBodies[0] ? table.tBodies[0].replaceWith(body) : table.append(body);
}

function ago(seconds) {
  if (seconds === null) return "never";
  if (seconds < 90) return Math.round(seconds) + " s ago";
  if (seconds < 5400) return Math.round(seconds / 60) + " min ago";
  if (seconds < 129600) return Math.round(seconds / 3600) + " h ago";
  return Math.round(seconds / 86400) + " days ago";
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (bytes >= 1000 && at < units.length - 1) { bytes /= 1000; at += 1; }
  return bytes.toFixed(at ? 1 : 0) + " " + units[at];
}

const known = (value, make) => (value === null || value === undefined || value === "" ? "–" : make(value));

function showSites(sites) {
  rows(byId("sites"), sites.map((site) => [
    [site.name],
    [site.state],
    [ago(site.seen_s)],
    [known(site.version, String)],
    [known(site.skew_s, (s) => (s > 0 ? "+" : "") + s.toFixed(1) + " s"), Math.abs(site.skew_s || 0) > 60 ? "weak" : ""],
    [known(site.disk_free_gb, (n) => n + " GB or more"), site.disk_free_gb !== null && site.disk_free_gb < 10 ? "weak" : ""],
    [known(site.gpus, String)],
    [known(site.epsilon, (e) => e.toFixed(2))],
    [known(site.certificate_days, (d) => d + " days"), site.certificate_days !== null && site.certificate_days < 14 ? "weak" : ""],
  ]));
  [...byId("sites").tBodies[0].rows].forEach((row, number) => {
    const dot = document.createElement("span");
    const on = sites[number].online;
    dot.className = "dot " + (on ? "on" : "off");
    dot.title = on ? "online" : "away";
    row.cells[0].prepend(dot);
  });
}

function table(head) {
  const made = document.createElement("table");
  const row = made.createTHead().insertRow();
  for (const word of head) {
    const th = document.createElement("th");
    th.textContent = word;
    row.append(th);
  }
  const wrap = document.createElement("div");
  wrap.className = "tablewrap";
  wrap.append(made);
  return [wrap, made];
}

function refusals(refused) {
  const said = Object.entries(refused).map(([site, code]) => site + ": " + code);
  return said.length ? said.join(", ") : "–";
}

function mean(values) {
  const told = Object.values(values).filter((value) => value !== null);
  return told.length ? (told.reduce((a, b) => a + b, 0) / told.length).toFixed(3) : "–";
}

function showRun(run) {
  const made = document.createElement("article");
  const title = document.createElement("h3");
  title.textContent = run.name + ": " + run.state;
  const now = document.createElement("p");
  now.textContent = run.round + " rounds completed. Since then trained: " + (run.under_way.join(", ") || "nobody yet") +
    ". Refused: " + refusals(run.refused) + ".";
  made.append(title, now);
  if (run.rounds.length) {
    const [wrap, grid] = table(["round", "seconds", "up", "down", "trained", "refused", "loss", "AUROC"]);
    rows(grid, run.rounds.map((one) => [
      [String(one.round)], [one.seconds.toFixed(1)], [size(one.bytes_up)], [size(one.bytes_down)],
      [one.trained.join(", "), "text"], [refusals(one.refused), "text"], [mean(one.loss)], [mean(one.auroc)],
    ]));
    made.append(wrap);
  }
  const sites = Object.entries(run.metrics);
  if (sites.length) {
    const [wrap, grid] = table(["hospital", "AUROC on test patients"]);
    rows(grid, sites.map(([site, models]) => [
      [site], [Object.entries(models).map(([m, v]) => m + " " + (v === null ? "suppressed" : v.toFixed(3))).join(", "), "text"],
    ]));
    made.append(wrap);
  }
  return made;
}

function show(now) {
  showSites(now.sites);
  byId("runs").replaceChildren(...(now.runs.length ? now.runs.map(showRun) : ["No study was submitted yet."]));
  rows(byId("events"), now.events.map((event) => [
    [event.time.slice(0, 19).replace("T", " ")], [event.run, "text"], [event.event, "text"],
    [Object.entries(event.fields).map(([key, value]) => key + " " + value).join(", "), "text"],
  ]));
  const states = Object.entries(now.processes).map(([name, state]) => name + " " + state);
  byId("processes").textContent = states.length ? "· " + states.join(", ") : "· nothing is started";
  byId("state").textContent = "as of " + new Date(now.at * 1000).toISOString().slice(11, 19) + " UTC";
}

async function look() {
  try {
    const answer = await fetch("now", { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    show(await answer.json());
    byId("all").classList.remove("stale");
  } catch {
    byId("state").textContent = "the server does not answer; what is shown is old";
    byId("all").classList.add("stale");
  }
  setTimeout(look, EVERY_MS);
}
look();
