// The form, its address, and what the server tells of the tensor.

import { count, number, plural } from "./format.js";
import { Histogram } from "./histogram.js";
import { Picture } from "./picture.js";

const FIRST = "kaiming_normal";
const PAUSE = 120; // milliseconds without a key, after which a text counts as typed

const $ = (id) => document.getElementById(id);
const histogram = new Histogram($("histogram"), $("histogram-readout"), $("legend"));
const picture = new Picture($("picture"), $("matrix"), $("picture-readout"), $("scale"));

let schemes = new Map();
let scheme = null; // the one whose fields are shown
let texts = {}; // of its fields
let edited = null; // the field whose edits are one entry of the history
const ownTexts = new Map(); // of the other schemes' own fields
let request = null;
let timer = null;

async function start() {
  const answer = await ask("/api/schemes");
  if (answer.errors) throw new Error(answer.errors[0].message);
  schemes = new Map(answer.schemes.map((each) => [each.name, each]));
  $("target").textContent = answer.target;
  $("scheme").replaceChildren(...answer.schemes.map((each) => new Option(each.name)));
  readAddress();
  window.addEventListener("popstate", readAddress);
  $("scheme").addEventListener("change", () => change(() => choose($("scheme").value)));
  $("form").addEventListener("submit", (event) => event.preventDefault());
  $("form").addEventListener("focusin", help);
  $("form").addEventListener("focusout", help);
  $("reset").addEventListener("click", () => change(() => setForm(scheme.name, examples(scheme))));
  for (const button of document.querySelectorAll("[data-copies]")) button.addEventListener("click", () => copy(button));
}

// The form

const examples = (of) => Object.fromEntries(of.fields.map((field) => [field.name, field.example]));

/** Another scheme begins with its example, but for what was set to something else and means the same. */
function choose(name) {
  const before = examples(scheme);
  const own = (field) => scheme.fields.find((each) => each.name === field)?.own;
  ownTexts.set(scheme.name, Object.fromEntries(Object.entries(texts).filter(([field]) => own(field))));
  const kept = Object.entries(texts).filter(([field, text]) => !own(field) && text !== before[field]);
  setForm(name, { ...examples(schemes.get(name)), ...ownTexts.get(name), ...Object.fromEntries(kept) });
}

function setForm(name, newTexts) {
  scheme = schemes.get(name);
  texts = Object.fromEntries(scheme.fields.map((field) => [field.name, newTexts[field.name] ?? ""]));
  $("scheme").value = name;
  $("about").textContent = scheme.text;
  const isSpecial = (field) => field.own || field.name === "shape";
  $("own").replaceChildren(...scheme.fields.filter(isSpecial).map(fieldElement));
  $("shared").replaceChildren(...scheme.fields.filter((field) => !isSpecial(field)).map(fieldElement));
  help();
}

function fieldElement(field) {
  const made = document.createElement("div");
  made.className = field.name === "shape" ? "field wide" : "field";
  const caption = document.createElement("label");
  caption.htmlFor = field.name;
  caption.textContent = field.name.replaceAll("_", " ");
  caption.title = field.meaning;
  const input = field.choices.length ? select(field) : textInput(field);
  input.id = input.name = field.name;
  input.value = texts[field.name] || (field.choices.length ? field.default : "");
  input.setAttribute("aria-describedby", `${field.name}-error ${field.name}-meaning`);
  if (field.required) input.required = true;
  const error = document.createElement("p");
  error.className = "error";
  error.id = `${field.name}-error`;
  error.setAttribute("aria-live", "polite");
  error.hidden = true;
  const meaning = document.createElement("p");
  meaning.className = "visually-hidden";
  meaning.id = `${field.name}-meaning`;
  meaning.textContent = field.meaning;
  made.append(caption, field.name === "seed" ? withNext(input) : input, error, meaning);
  return made;
}

function select(field) {
  const made = document.createElement("select");
  if (field.required) made.append(new Option("", ""));
  made.append(...field.choices.map((choice) => new Option(choice)));
  made.addEventListener("change", () => change(() => (texts[field.name] = made.value)));
  return made;
}

function textInput(field) {
  const made = document.createElement("input");
  made.placeholder = field.default;
  made.addEventListener("input", () => change(() => (texts[field.name] = made.value), field.name));
  made.addEventListener("blur", () => (edited = null));
  return made;
}

function withNext(input) {
  const made = document.createElement("div");
  made.className = "with-button";
  const next = document.createElement("button");
  next.type = "button";
  next.textContent = "↻";
  next.title = "the next seed";
  next.setAttribute("aria-label", "the next seed");
  next.addEventListener("click", () => change(() => (texts.seed = input.value = following(input.value)), "seed"));
  made.append(input, next);
  return made;
}

function following(text) {
  try {
    return String(BigInt.asUintN(64, BigInt(text.trim() || 0) + 1n));
  } catch {
    return "0";
  }
}

function help() {
  const field = scheme.fields.find((each) => each.name === document.activeElement?.name);
  $("help").textContent = field?.meaning ?? "";
}

// The address

/** What was given; nothing means the default, in the address as in the form. */
function address() {
  const isDefault = (field) => field.choices.length > 0 && texts[field.name] === field.default;
  const given = scheme.fields.filter((field) => texts[field.name] !== "" && !isDefault(field));
  const query = new URLSearchParams([["scheme", scheme.name], ...given.map((field) => [field.name, texts[field.name]])]);
  if (!query.has("shape")) query.set("shape", texts.shape); // an empty one is a scalar's
  return `?${query}`.replaceAll("%2C", ",").replaceAll("%3A", ":");
}

function readAddress() {
  const given = Object.fromEntries(new URLSearchParams(location.search));
  const name = schemes.has(given.scheme) ? given.scheme : schemes.has(FIRST) ? FIRST : schemes.keys().next().value;
  edited = null;
  setForm(name, given.scheme === name ? given : examples(schemes.get(name)));
  history.replaceState(null, "", address());
  refresh();
}

/** Changes the form: an entry in the history, one for all edits of a field while it is being edited. */
function change(apply, field = null) {
  apply();
  history[field && field === edited ? "replaceState" : "pushState"](null, "", address());
  edited = field;
  clearTimeout(timer);
  timer = setTimeout(refresh, field ? PAUSE : 0);
}

// The answer

async function ask(path, signal) {
  const answer = await fetch(path, { signal });
  if (answer.headers.get("content-type") === "application/json") return answer.json();
  return { errors: [{ field: "", message: `The page's server failed, with status ${answer.status}; its terminal may tell more.` }] };
}

async function refresh() {
  clearTimeout(timer);
  request?.abort();
  const mine = (request = new AbortController());
  $("results").setAttribute("aria-busy", "true");
  let answer;
  try {
    answer = await ask(`/api/tensor${address()}`, mine.signal);
  } catch (error) {
    if (mine.signal.aborted) return;
    answer = { errors: [{ field: "", message: "The page's server does not answer; start `seedbed explore` again." }] };
  }
  if (mine !== request) return;
  $("results").setAttribute("aria-busy", "false");
  showErrors(answer.errors ?? []);
  if (!answer.errors) show(answer);
}

function showErrors(errors) {
  for (const field of [{ name: "scheme" }, ...scheme.fields]) {
    const found = errors.find((error) => error.field === field.name);
    const place = $(`${field.name}-error`);
    place.textContent = found?.message ?? "";
    place.hidden = !found;
    $(field.name).setAttribute("aria-invalid", String(Boolean(found)));
  }
  const others = errors.filter((error) => !$(`${error.field}-error`));
  $("banner").textContent = others.map((error) => error.message).join(" ");
  $("banner").hidden = !others.length;
  $("results").classList.toggle("stale", errors.length > 0);
  for (const button of document.querySelectorAll("[data-copies]")) button.disabled = errors.length > 0;
  if (!errors.length) return;
  const isEmpty = $("results").classList.contains("empty");
  $("law").textContent = isEmpty ? "Nothing to show yet" : $("law").textContent;
  $("status").textContent = isEmpty ? "" : "below is the last tensor that could be made";
}

function show(answer) {
  const { sample } = answer;
  $("results").classList.remove("empty");
  document.title = `${scheme.name} · Seedbed explore`;
  $("law").textContent = answer.law;
  $("status").textContent = sample ? statusText(sample) : "described, not sampled";
  $("histogram-panel").hidden = $("picture-panel").hidden = !sample;
  $("note").textContent = answer.refusal ?? "";
  $("note").hidden = !answer.refusal;
  histogram.show(answer.histogram, sample?.size);
  picture.show(answer.picture);
  showNumbers(answer);
  $("python").textContent = answer.python;
  $("command").textContent = answer.command;
}

function statusText({ size, of, milliseconds }) {
  const part = size === of ? plural(size, "value") : `the first ${count(size)} of ${plural(of, "value")}`;
  return `${part}, sampled in ${milliseconds < 1 ? "under 1" : count(Math.round(milliseconds))} ms`;
}

function showNumbers({ moments, sample, facts }) {
  const cells = $("moments").tBodies[0].rows;
  ["mean", "std"].forEach((name, index) => {
    cells[index].cells[1].textContent = number(moments[index]);
    cells[index].cells[2].textContent = number(sample?.[name]);
  });
  $("facts").replaceChildren(
    ...facts.map(([name, text]) => {
      const row = document.createElement("div");
      const [term, meaning] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name.replaceAll("_", " ");
      meaning.textContent = text;
      row.append(term, meaning);
      return row;
    }),
  );
}

async function copy(button) {
  const code = $(button.dataset.copies);
  let done = "Copied";
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    getSelection().selectAllChildren(code);
    done = "Selected";
  }
  $("copied").textContent = done;
  button.textContent = done;
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

start().catch((error) => {
  $("law").textContent = "";
  $("banner").textContent = `The page could not be started: ${error.message}`;
  $("banner").hidden = false;
});
