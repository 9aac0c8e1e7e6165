"use strict";
// Looks through the records that are in the file. What comes from them is set as text alone, and nothing is loaded or sent.

(() => {
  const $ = (id) => document.getElementById(id);
  const PAGE = 50, WORDS = 2000;

  function make(tag, given = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(given)) {
      if (name === "text") made.textContent = value;
      else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  // Printing opens what is closed, and closes it again.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const each of opened) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of opened) each.open = false; });

  // What differs between two texts, word by word: the longest sequence of words that both have stays.
  const words = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) || [];

  function difference(before, after) {
    const a = words(before), b = words(after), whole = make("pre", { dir: "auto" });
    let start = 0, end = 0;
    while (start < a.length && start < b.length && a[start] === b[start]) start++;
    while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
    const one = a.slice(start, a.length - end), two = b.slice(start, b.length - end);
    const kept = one.length && two.length && one.length <= WORDS && two.length <= WORDS ? common(one, two) : [];
    const parts = [["", a.slice(0, start).join("")]];
    let i = 0, j = 0;
    for (const [x, y] of [...kept, [one.length, two.length]]) {
      if (x > i) parts.push(["del", one.slice(i, x).join("")]);
      if (y > j) parts.push(["ins", two.slice(j, y).join("")]);
      if (x < one.length) parts.push(["", one[x]]);
      i = x + 1;
      j = y + 1;
    }
    parts.push(["", a.slice(a.length - end).join("")]);
    for (const [tag, text] of parts) if (text) whole.append(tag ? make(tag, { text }) : text);
    return whole;
  }

  // The places of a longest common subsequence.
  function common(a, b) {
    const wide = b.length + 1, length = new Uint16Array((a.length + 1) * wide);
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        length[i * wide + j] = a[i] === b[j]
          ? length[(i + 1) * wide + j + 1] + 1
          : Math.max(length[(i + 1) * wide + j], length[i * wide + j + 1]);
      }
    }
    const found = [];
    for (let i = 0, j = 0; i < a.length && j < b.length;) {
      if (a[i] === b[j]) found.push([i++, j++]);
      else if (length[(i + 1) * wide + j] >= length[i * wide + j + 1]) i++;
      else j++;
    }
    return found;
  }

  // JSON is compared as JSON: how it was laid out is no difference.
  function laidOut(text) {
    try {
      const value = JSON.parse(text);
      return value && typeof value === "object" ? JSON.stringify(value, null, 2) : text;
    } catch { return text; }
  }

  // Answers to one row, side by side in time: each as it differs from the one before, or as it is.
  function answers(list) {
    const box = make("div");
    list.forEach(({ title, text, why }, at) => {
      const heading = make("h3", { text: title }), before = at ? laidOut(list[at - 1].text) : "", now = laidOut(text);
      const plain = make("pre", { dir: "auto", text });
      box.append(heading);
      if (before && now && before !== now) {
        const shown = difference(before, now);
        const toggle = make("input", { type: "checkbox" });
        toggle.checked = true;
        plain.hidden = true;
        toggle.addEventListener("change", () => { shown.hidden = !toggle.checked; plain.hidden = toggle.checked; });
        heading.append(make("label", { class: "difference" }, toggle, " against the answer before"));
        box.append(shown);
      }
      if (text) box.append(plain);
      if (before && before === now) box.append(make("p", { class: "soft", text: "The same as the answer before." }));
      if (why) box.append(make("p", { class: "why", text: why }));
    });
    return box;
  }

  for (const place of document.querySelectorAll("[data-answers]")) {
    const list = JSON.parse(place.querySelector("script").textContent);
    place.replaceChildren(answers(list));
  }

  const data = $("data");
  if (!data) return;
  const records = JSON.parse(data.textContent);
  const texts = records.map((record) => JSON.stringify([
    record.id, record.why, record.output, record.raw, record.input, record.history, record.prompt,
  ].filter(Boolean)).toLowerCase());
  let found = [], shown = 0, at = 0;

  const history = (record) => record.history || [];
  const said = (record) => record.why || record.output || record.raw || "";
  const short = (text) => (text.length > 240 ? `${text.slice(0, 240)}…` : text);

  function row(record, place) {
    const tokens = record.tokens || [0, 0];
    return make("tr", {},
      make("td", {}, make("button", { type: "button", class: "open", text: record.id, onclick: () => open(place) })),
      make("td", {}, make("span", { class: `badge ${record.status}`, text: record.kind ? `${record.status}: ${record.kind}` : record.status })),
      make("td", { dir: "auto", text: short(said(record)) }),
      make("td", { class: "n", text: record.attempts || 0 }),
      make("td", { class: "n", text: `${tokens[0].toLocaleString("en")} + ${tokens[1].toLocaleString("en")}` }));
  }

  function more() {
    const next = found.slice(shown, shown + PAGE).map((record, place) => row(record, shown + place));
    document.querySelector("#rows tbody").append(...next);
    shown += next.length;
    $("more").hidden = shown >= found.length;
  }

  function filter() {
    const status = $("status").value, kind = $("kind").value, text = JSON.stringify($("text").value.toLowerCase()).slice(1, -1);
    found = records.filter((record, place) =>
      (!status || record.status === status || (status === "retried" && record.attempts > 1))
      && (!kind || record.kind === kind || history(record).some((attempt) => attempt.kind === kind))
      && (!text || texts[place].includes(text)));
    document.querySelector("#rows tbody").replaceChildren();
    shown = 0;
    more();
    $("found").textContent = `${found.length.toLocaleString("en")} of ${records.length.toLocaleString("en")} records`;
  }

  function block(title, text, closed = false) {
    if (!text) return null;
    const body = make("pre", { dir: "auto", text });
    return closed ? make("details", {}, make("summary", { text: title }), body) : make("div", {}, make("h3", { text: title }), body);
  }

  function open(place) {
    const record = found[place];
    at = place;
    const last = record.status === "ok" ? "Result" : `Ended ${record.status}${record.kind ? `: ${record.kind}` : ""}`;
    const list = history(record).map((attempt) => ({
      title: `${attempt.name[0].toUpperCase()}${attempt.name.slice(1)}, sent back: ${attempt.kind}`, text: attempt.text || "", why: attempt.why,
    }));
    list.push({ title: last, text: record.output || record.raw || "", why: record.why || "" });
    const [prompt, answer, cached] = record.tokens || [0, 0, 0];
    const about = [record.place, `index ${record.index}`, `${record.attempts || 0} answers`, `${prompt} prompt tokens (${cached} cached)`, `${answer} answer tokens`, record.finish];
    $("record-title").textContent = `Row ${record.id}`;
    $("record-body").replaceChildren(...[
      make("p", { class: "soft", text: about.filter(Boolean).join(" · ") }),
      ...(record.prompt || []).map((message) => block(`Prompt: ${message.role}`, message.text)),
      block("Input", record.input, true),
      record.before ? make("p", { class: "soft", text: `${record.before} earlier answers are left out here.` }) : null,
      answers(list),
      block("Reasoning", record.reasoning, true),
      block("How the program came to it", record.details, true),
    ].filter(Boolean));
    $("before").disabled = at === 0;
    $("after").disabled = at === found.length - 1;
    if (!$("record").open) $("record").showModal();
    $("record").scrollTop = 0;
  }

  const step = (by) => { if (found[at + by]) open(at + by); };
  $("before").addEventListener("click", () => step(-1));
  $("after").addEventListener("click", () => step(1));
  $("close").addEventListener("click", () => $("record").close());
  $("record").addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  $("record").addEventListener("click", (event) => { if (event.target === $("record")) $("record").close(); });
  $("filter").addEventListener("input", filter);
  $("filter").addEventListener("submit", (event) => event.preventDefault());
  $("more").addEventListener("click", more);
  for (const link of document.querySelectorAll("a[data-kind]")) {
    link.addEventListener("click", () => { $("status").value = ""; $("text").value = ""; $("kind").value = link.dataset.kind; filter(); });
  }
  $("browser").hidden = false;
  $("without").hidden = true;
  filter();
})();
