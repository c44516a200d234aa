// The form, its URL, and the server's view of the tensor.

import { count, number, plural } from "./format.js";
import { Histogram } from "./histogram.js";
import { Picture } from "./picture.js";

const FIRST = "kaiming_normal";
const PAUSE = 120; // milliseconds after the last key press before a request is sent

const $ = (id) => document.getElementById(id);
const histogram = new Histogram($("histogram"), $("histogram-readout"), $("legend"));
const picture = new Picture($("picture"), $("matrix"), $("picture-readout"), $("scale"));

let schemes = new Map();
let scheme = null; // the scheme whose fields are shown
let texts = {}; // the texts of its fields
let edited = null; // the field whose edits share one entry of the history
const ownTexts = new Map(); // the texts of the other schemes' own fields
let request = null;
let timer = null;

async function start() {
  const page = await load("/api/schemes");
  if (page.errors) throw new Error(page.errors[0].message);
  schemes = new Map(page.schemes.map((each) => [each.name, each]));
  $("target").textContent = page.target;
  $("scheme").replaceChildren(...page.schemes.map((each) => new Option(each.name)));
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

/** Switches to another scheme's example, but keeps shared fields that the user has changed. */
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
  const node = document.createElement("div");
  node.className = field.name === "shape" ? "field wide" : "field";
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
  node.append(caption, field.name === "seed" ? withNextButton(input) : input, error, meaning);
  return node;
}

function select(field) {
  const node = document.createElement("select");
  if (field.required) node.append(new Option("", ""));
  node.append(...field.choices.map((choice) => new Option(choice)));
  node.addEventListener("change", () => change(() => (texts[field.name] = node.value)));
  return node;
}

function textInput(field) {
  const node = document.createElement("input");
  node.placeholder = field.default;
  node.addEventListener("input", () => change(() => (texts[field.name] = node.value), field.name));
  node.addEventListener("blur", () => (edited = null));
  return node;
}

function withNextButton(input) {
  const node = document.createElement("div");
  node.className = "with-button";
  const next = document.createElement("button");
  next.type = "button";
  next.textContent = "↻";
  next.title = "next seed";
  next.setAttribute("aria-label", "next seed");
  next.addEventListener("click", () => change(() => (texts.seed = input.value = nextSeed(input.value)), "seed"));
  node.append(input, next);
  return node;
}

function nextSeed(text) {
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

// The URL

/** The query of the form; fields with defaults are omitted. */
function address() {
  const isDefault = (field) => field.choices.length > 0 && texts[field.name] === field.default;
  const filled = scheme.fields.filter((field) => texts[field.name] !== "" && !isDefault(field));
  const query = new URLSearchParams([["scheme", scheme.name], ...filled.map((field) => [field.name, texts[field.name]])]);
  if (!query.has("shape")) query.set("shape", texts.shape); // an empty shape means a scalar
  return `?${query}`.replaceAll("%2C", ",").replaceAll("%3A", ":");
}

function readAddress() {
  const query = Object.fromEntries(new URLSearchParams(location.search));
  const name = schemes.has(query.scheme) ? query.scheme : schemes.has(FIRST) ? FIRST : schemes.keys().next().value;
  edited = null;
  setForm(name, query.scheme === name ? query : examples(schemes.get(name)));
  history.replaceState(null, "", address());
  refresh();
}

/** Changes the form and adds an entry to the history; consecutive edits of one field share an entry. */
function change(apply, field = null) {
  apply();
  history[field && field === edited ? "replaceState" : "pushState"](null, "", address());
  edited = field;
  clearTimeout(timer);
  timer = setTimeout(refresh, field ? PAUSE : 0);
}

// The server's response

async function load(path, signal) {
  const response = await fetch(path, { signal });
  if (response.headers.get("content-type") === "application/json") return response.json();
  return { errors: [{ field: "", message: `The page's server failed with status ${response.status}; see its terminal.` }] };
}

async function refresh() {
  clearTimeout(timer);
  request?.abort();
  const controller = (request = new AbortController());
  $("results").setAttribute("aria-busy", "true");
  let view;
  try {
    view = await load(`/api/tensor${address()}`, controller.signal);
  } catch (error) {
    if (controller.signal.aborted) return;
    view = { errors: [{ field: "", message: "The page's server is not responding; run `seedbed explore` again." }] };
  }
  if (controller !== request) return;
  $("results").setAttribute("aria-busy", "false");
  showErrors(view.errors ?? []);
  if (!view.errors) show(view);
}

function showErrors(errors) {
  for (const field of [{ name: "scheme" }, ...scheme.fields]) {
    const fieldError = errors.find((error) => error.field === field.name);
    const node = $(`${field.name}-error`);
    node.textContent = fieldError?.message ?? "";
    node.hidden = !fieldError;
    $(field.name).setAttribute("aria-invalid", String(Boolean(fieldError)));
  }
  const others = errors.filter((error) => !$(`${error.field}-error`));
  $("banner").textContent = others.map((error) => error.message).join(" ");
  $("banner").hidden = !others.length;
  $("results").classList.toggle("stale", errors.length > 0);
  for (const button of document.querySelectorAll("[data-copies]")) button.disabled = errors.length > 0;
  if (!errors.length) return;
  const isEmpty = $("results").classList.contains("empty");
  $("law").textContent = isEmpty ? "Nothing to show yet" : $("law").textContent;
  $("status").textContent = isEmpty ? "" : "showing the last valid tensor";
}

function show(view) {
  const { sample } = view;
  $("results").classList.remove("empty");
  document.title = `${scheme.name} · Seedbed explore`;
  $("law").textContent = view.law;
  $("status").textContent = sample ? statusText(sample) : "described, not sampled";
  $("histogram-panel").hidden = $("picture-panel").hidden = !sample;
  $("note").textContent = view.refusal ?? "";
  $("note").hidden = !view.refusal;
  histogram.show(view.histogram, sample?.size);
  picture.show(view.picture);
  showNumbers(view);
  $("python").textContent = view.python;
  $("command").textContent = view.command;
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
  let message = "Copied";
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    getSelection().selectAllChildren(code);
    message = "Selected";
  }
  $("copied").textContent = message;
  button.textContent = message;
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

start().catch((error) => {
  $("law").textContent = "";
  $("banner").textContent = `The page could not start: ${error.message}`;
  $("banner").hidden = false;
});
