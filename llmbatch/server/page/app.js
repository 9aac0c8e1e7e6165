"use strict";
// Nothing that came from a request or a model is ever put into the page as HTML: `make` sets text alone.

const $ = (id) => document.getElementById(id);
const state = { server: null, batches: [], more: false, open: null, file: null, nextRow: null, asked: 0, pages: 1 };
const OVER = ["completed", "failed", "expired", "cancelled"];
const count = (number) => Number(number || 0).toLocaleString("en");
const size = (bytes) => (bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`);

function make(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function say(text) {
  $("said").textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { $("said").textContent = ""; }, 8000);
}

const keyed = () => {
  const key = sessionStorage.getItem("key");
  return key ? { Authorization: `Bearer ${key}` } : {};
};

async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { ...keyed(), ...(options.headers || {}) } });
  if (answer.status === 401) { $("login").hidden = false; throw new Error("an API key is needed"); }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Error(said.error ? said.error.message : `the server says ${answer.status}`);
  }
  return answer;
}
const json = async (path, options) => (await ask(path, options)).json();

function time(seconds) {
  if (seconds === null || seconds === undefined) return "—";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

// The list of batches.

let tellServer;
const serverKnown = new Promise((resolve) => { tellServer = resolve; }); // what it takes is known

async function look() {
  try {
    if (!state.server) {
      state.server = await json("/llmbatch/server");
      tellServer();
      $("login").hidden = true;
      const owner = state.server.owner ? ` · ${state.server.owner}` : "";
      const most = state.server.owner_bytes ? ` · files ${size(state.server.stored_bytes)} of ${size(state.server.owner_bytes)}` : "";
      $("about").textContent = `${state.server.models[0]} · version ${state.server.version}${owner}${most}`;
    }
    if (!document.hidden) {
      await loadBatches();
      if (state.open) await showBatch();
    }
    look.failed = false;
  } catch (error) {
    if (!look.failed && $("login").hidden) say(`The server cannot be asked: ${error.message}`);
    look.failed = true;
  }
  const busy = state.batches.some((batch) => !OVER.includes(batch.state));
  setTimeout(look, busy ? 1000 : 3000);
}

async function loadBatches() {
  let after = "", found = [], more = true;
  for (let page = 0; page < state.pages && more; page++) {
    const answer = await json(`/llmbatch/batches?limit=50${after && `&after=${after}`}`);
    found = found.concat(answer.data);
    more = answer.has_more;
    after = found.length ? found[found.length - 1].id : "";
  }
  state.batches = found;
  $("more").hidden = !more;
  showBatches();
}

const named = (batch) => (batch.given.metadata && (batch.given.metadata.name || batch.given.metadata.filename)) || batch.id;

function bar(batch) {
  const total = Math.max(1, batch.rows);
  const good = make("i"), bad = make("i", { class: "bad" });
  good.style.width = `${(100 * batch.done) / total}%`;
  bad.style.width = `${(100 * batch.failed) / total}%`;
  const label = `${count(batch.done)} of ${count(batch.rows)} rows done, ${count(batch.failed)} failed`;
  return make("span", { class: "bar", role: "img", "aria-label": label }, good, bad);
}

function summary(batch) {
  const none = OVER.includes(batch.state) ? "nothing was run" : "not counted yet";
  const rows = batch.rows ? `${count(batch.done)} of ${count(batch.rows)} rows` : none;
  const failed = batch.failed ? ` · ${count(batch.failed)} failed` : "";
  const left = batch.seconds_left && !OVER.includes(batch.state) ? ` · about ${time(batch.seconds_left)} left` : "";
  return `${new Date(1000 * batch.created).toLocaleString()} · ${rows}${failed}${left}`;
}

function showBatches() {
  $("none").hidden = state.batches.length > 0;
  const focused = document.activeElement && document.activeElement.dataset.id;
  $("batches").replaceChildren(...state.batches.map((batch) => make("li", {},
    make("button", {
      type: "button", "data-id": batch.id, "aria-expanded": String(batch.id === state.open), "aria-controls": "batch",
      onclick: () => openBatch(batch.id === state.open ? null : batch.id),
    },
    make("span", { class: "name", text: named(batch) }),
    make("span", { class: `state ${batch.state}`, text: batch.state.replace("_", " ") }),
    make("span", { class: "soft", text: summary(batch) }),
    make("span", { class: "soft from", text: batch.given.endpoint || batch.front }),
    bar(batch)))));
  if (focused) { const again = document.querySelector(`#batches [data-id="${focused}"]`); if (again) again.focus(); }
}

$("more").addEventListener("click", () => { state.pages += 1; loadBatches().catch((error) => say(error.message)); });

// One batch.

async function openBatch(id) {
  state.open = id;
  $("batch").hidden = id === null;
  showBatches();
  if (id === null) return;
  $("rows").replaceChildren();
  state.shown = null;
  try {
    await showBatch();
    await loadRows(true);
    $("batch").scrollIntoView({ block: "nearest" });
  } catch (error) { say(error.message); }
}

const fact = (name, value) => make("div", {}, make("dt", { text: name }), make("dd", { text: value }));

async function showBatch() {
  const batch = await json(`/llmbatch/batches/${state.open}`);
  if (batch.id !== state.open) return;
  $("batch-title").textContent = `${named(batch)} — ${batch.state.replace("_", " ")}`;
  const kinds = Object.entries(batch.by_failure || {}).map(([kind, number]) => `${kind} ${count(number)}`).join(" · ");
  const usage = batch.usage || { input: 0, output: 0, cached: 0 };
  const facts = [
    fact("Rows done", `${count(batch.done)} of ${count(batch.rows)}`),
    fact("Failed", batch.failed ? `${count(batch.failed)}${kinds ? ` (${kinds})` : ""}` : "0"),
    fact("Tokens in", `${count(usage.input)}${usage.cached ? ` (${count(usage.cached)} cached)` : ""}`),
    fact("Tokens out", count(usage.output)),
    fact("Model", batch.model || "—"),
  ];
  if (!OVER.includes(batch.state)) {
    facts.push(fact("Time left", time(batch.seconds_left)), fact("Speed", `${(batch.rows_per_s || 0).toFixed(1)} rows/s, ${Math.round(batch.tokens_per_s || 0)} tokens/s`));
  }
  const idle = batch.given.no_effect || [];
  if (idle.length) facts.push(fact("Without effect here", idle.join(", ")));
  const errors = batch.errors.map((error) => make("li", { text: `${error.line ? `line ${error.line}: ` : ""}${error.message}` }));
  $("facts").replaceChildren(bar(batch), make("dl", {}, ...facts), errors.length ? make("ul", { class: "error" }, ...errors) : "");
  const shown = [batch.id, batch.state, Object.values(batch.files).join()].join();
  if (shown !== state.shown) { state.shown = shown; showActions(batch); }
  const grown = batch.done + batch.failed;
  if (grown !== state.grown && $("rows").children.length < 50) { state.grown = grown; await loadRows(true); }
}

function showActions(batch) {
  const actions = Object.entries(batch.files).map(([role, id]) => make("a", {
    href: `/v1/files/${id}/content`, download: `${batch.id}_${role}.jsonl`, text: role === "output" ? "Download answers" : "Download errors",
    onclick: (event) => download(event, id, `${batch.id}_${role}.jsonl`),
  }));
  if (["validating", "in_progress", "finalizing"].includes(batch.state)) actions.push(make("button", { type: "button", text: "Cancel", onclick: () => act(batch, "cancel") }));
  if (batch.given_up) actions.push(make("button", { type: "button", text: "Go on", onclick: () => act(batch, "retry") }));
  else if (OVER.includes(batch.state) && batch.failed) actions.push(make("button", { type: "button", text: `Try ${count(batch.failed)} failed ${batch.failed === 1 ? "row" : "rows"} again`, onclick: () => act(batch, "retry") }));
  $("actions").replaceChildren(...actions);
}

async function act(batch, what) {
  if (what === "cancel" && !confirm("Cancel this batch? What is finished is kept.")) return;
  try {
    const changed = await json(`/llmbatch/batches/${batch.id}/${what}`, { method: "POST" });
    await loadBatches();
    await openBatch(changed.id);
  } catch (error) { say(error.message); }
}

async function download(event, id, name) {
  if (!keyed().Authorization) return; // the browser streams it to the disk by itself
  event.preventDefault();
  try {
    const blob = await (await ask(`/v1/files/${id}/content`)).blob();
    const url = URL.createObjectURL(blob);
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  } catch (error) { say(error.message); }
}

// Its rows.

async function loadRows(anew) {
  const asked = ++state.asked, id = state.open;
  const after = anew ? -1 : state.nextRow;
  const query = new URLSearchParams({ search: $("search").value, status: $("status").value, after, limit: 50 });
  const found = await json(`/llmbatch/batches/${id}/rows?${query}`);
  if (asked !== state.asked || id !== state.open) return;
  const rows = found.rows.map((row) => make("tr", {},
    make("td", {}, make("button", { type: "button", "data-row": row.index, text: row.id, onclick: () => showRow(row.index), "aria-label": `Row ${row.id}: prompt and attempts` })),
    make("td", { class: row.status, text: row.status }),
    make("td", { text: row.error ? `${row.error.kind}: ${row.error.message}` : row.output }),
    make("td", { text: count(row.tokens) }),
    make("td", { text: row.attempts })));
  const focused = document.activeElement && document.activeElement.dataset.row;
  if (anew) $("rows").replaceChildren(...rows); else $("rows").append(...rows);
  if (anew && focused) { const again = document.querySelector(`#rows [data-row="${focused}"]`); if (again) again.focus(); }
  state.nextRow = found.next;
  $("more-rows").hidden = found.next === null;
  $("rows-said").textContent = $("rows").children.length ? "" : "No rows to show.";
}

$("more-rows").addEventListener("click", () => loadRows(false).catch((error) => say(error.message)));
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("status").addEventListener("change", () => loadRows(true).catch((error) => say(error.message)));
$("search").addEventListener("input", () => {
  clearTimeout(state.typing);
  state.typing = setTimeout(() => loadRows(true).catch((error) => say(error.message)), 250);
});

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
const block = (title, value) => [make("h3", { text: title }), make("pre", { text: text(value) })];

async function showRow(index) {
  try {
    const { request, record } = await json(`/llmbatch/batches/${state.open}/rows/${index}`);
    const body = request.body || request, parts = [];
    for (const message of body.messages || []) parts.push(...block(message.role, message.content));
    if (!body.messages) parts.push(...block("asked", body.prompt || body.input || body));
    const rest = Object.fromEntries(Object.entries(body).filter(([name]) => name !== "messages"));
    parts.push(...block("settings", rest));
    if (!record) parts.push(make("p", { text: "This row was not run." }));
    else {
      for (const attempt of record.history || []) parts.push(...block(`attempt ${attempt.attempt}, sent back: ${attempt.error.kind} — ${attempt.error.message}`, attempt.text || "no answer"));
      if (record.reasoning) parts.push(...block("thinking", record.reasoning));
      if (record.tool_calls) parts.push(...block("calls", record.tool_calls));
      if (record.error) parts.push(...block(`${record.status}: ${record.error.kind}`, record.error.message));
      parts.push(...block(`answer (${record.status}${record.finish_reason ? `, ${record.finish_reason}` : ""})`, record.output === null ? record.raw || "none" : record.output));
      parts.push(make("p", { class: "soft", text: `${count(record.usage.prompt_tokens)} tokens in, ${count(record.usage.completion_tokens)} out, ${record.attempts} ${record.attempts === 1 ? "attempt" : "attempts"}` }));
    }
    $("row-title").textContent = `Row ${record ? record.id : request.custom_id}`;
    $("row-body").replaceChildren(...parts);
    $("row").showModal();
  } catch (error) { say(error.message); }
}
$("row-close").addEventListener("click", () => $("row").close());
$("row").addEventListener("click", (event) => { if (event.target === $("row")) $("row").close(); });

// A new batch.

async function checkLines(file) {
  const seen = new Set(), errors = [];
  let rows = 0, line = 0, url = null, model = null, rest = "";
  const wrong = (said) => { if (errors.length < 20) errors.push(`line ${line}: ${said}`); };
  const one = (content) => {
    line += 1;
    if (!content.trim()) return;
    rows += 1;
    let data;
    try { data = JSON.parse(content); } catch { wrong("is not JSON"); return; }
    if (typeof data !== "object" || data === null || Array.isArray(data)) { wrong("is not a JSON object"); return; }
    if (typeof data.custom_id !== "string" || !data.custom_id) { wrong("has no custom_id"); return; }
    if (data.method !== "POST" || typeof data.body !== "object" || data.body === null) { wrong("needs method POST and a body"); return; }
    if (seen.has(data.custom_id)) wrong(`has the custom_id ${data.custom_id} of an earlier line`);
    seen.add(data.custom_id);
    url = url || data.url;
    if (data.url !== url) wrong(`is for ${data.url}, and the first one for ${url}`);
    model = model || data.body.model;
    if (data.body.model !== model) wrong(`names the model ${data.body.model}, and the first one ${model}`);
    else if (rows === 1 && !state.server.models.includes(model)) wrong(`names the model ${model}, and here is ${state.server.models.join(", ")}`);
  };
  const reader = file.stream().pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) one(part);
    if (rows > state.server.max_lines) { errors.push(`the file has more than ${count(state.server.max_lines)} lines`); reader.cancel(); break; }
    if (errors.length >= 20) { reader.cancel(); break; }
  }
  if (rest) one(rest);
  if (!rows) errors.push("the file has no lines");
  if (file.size > state.server.max_bytes) errors.push("the file is larger than this server takes");
  return { rows, url, errors };
}

async function choose(file) {
  if (!file) return;
  state.file = null;
  $("check").hidden = false;
  $("start").disabled = true;
  $("check-errors").replaceChildren();
  $("check-said").textContent = `Reading ${file.name} …`;
  try {
    await serverKnown;
    const seen = await checkLines(file);
    $("check-errors").replaceChildren(...seen.errors.map((error) => make("li", { text: error })));
    $("check-said").textContent = seen.errors.length
      ? `${file.name} cannot be a batch as it is:`
      : `${file.name}: ${count(seen.rows)} requests for ${seen.url}, all of them sound.`;
    if (!seen.errors.length) { state.file = { file, url: seen.url }; $("start").disabled = false; $("start").focus(); }
  } catch (error) { $("check-said").textContent = `${file.name} cannot be read: ${error.message}`; }
}

function upload(file) {
  return new Promise((resolve, reject) => {
    const form = new FormData(), request = new XMLHttpRequest(); // fetch does not tell how far an upload is
    form.append("purpose", "batch");
    form.append("file", file, file.name);
    request.open("POST", "/v1/files");
    for (const [name, value] of Object.entries(keyed())) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => { if (event.lengthComputable) $("uploading").value = event.loaded / event.total; });
    request.addEventListener("load", () => {
      const answer = JSON.parse(request.responseText || "{}");
      if (request.status === 200) resolve(answer); else reject(new Error(answer.error ? answer.error.message : `the server says ${request.status}`));
    });
    request.addEventListener("error", () => reject(new Error("the connection was lost")));
    request.send(form);
  });
}

$("start").addEventListener("click", async () => {
  const { file, url } = state.file;
  $("start").disabled = true;
  $("uploading").hidden = false;
  try {
    const stored = await upload(file);
    const batch = await json("/v1/batches", {
      method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ input_file_id: stored.id, endpoint: url, completion_window: $("window").value, metadata: { name: file.name.slice(0, 500) } }),
    });
    $("check").hidden = true;
    $("file").value = "";
    await loadBatches();
    await openBatch(batch.id);
  } catch (error) { say(error.message); $("start").disabled = false; }
  $("uploading").hidden = true;
});
$("forget").addEventListener("click", () => { $("check").hidden = true; $("file").value = ""; $("file").focus(); });
$("file").addEventListener("change", () => choose($("file").files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") choose(event.dataTransfer.files[0]);
  });
}

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value);
  try { await json("/llmbatch/server"); $("key").value = ""; $("login-error").textContent = ""; $("login").hidden = true; }
  catch { $("login-error").textContent = "This key is not known here."; }
});

look();
