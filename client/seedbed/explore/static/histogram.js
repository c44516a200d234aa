// The histogram of the sample with the density of the law, or the shares of single values where there is no density.

import { count, fine, marks, number, percent, plural, ticks } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { top: 10, right: 14, bottom: 26, left: 46 };

export class Histogram {
  constructor(place, readout, legend) {
    this.place = place;
    this.readout = readout;
    this.legend = legend;
    this.data = null;
    this.missing = "";
    this.selected = -1;
    new ResizeObserver(() => this.draw()).observe(place);
    place.addEventListener("pointermove", (event) => this.choose(this.binAt(event)));
    place.addEventListener("pointerleave", () => this.choose(-1));
    place.addEventListener("blur", () => this.choose(-1));
    place.addEventListener("keydown", (event) => this.step(event));
  }

  show(histogram, size) {
    this.data = histogram && size ? { ...histogram, size } : null;
    this.missing = size ? "The law is too wide or too narrow to draw." : "The tensor is empty.";
    this.selected = -1;
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.place;
    if (!width || !height) return;
    const svg = element("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    this.place.replaceChildren(svg);
    this.svg = svg;
    this.cursor = null;
    this.box = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
    if (!this.data) {
      this.legend.replaceChildren();
      svg.append(label(this.missing, width / 2, height / 2, "middle"));
    } else if (this.data.counts.length) {
      this.drawDensity(this.data);
    } else {
      this.drawShares(this.data);
    }
    this.updateReadout();
  }

  drawDensity({ edges, counts, curve, atoms, size }) {
    const heights = counts.map((amount, bin) => amount / size / (edges[bin + 1] - edges[bin]));
    const law = curve ?? { x: [], y: [] };
    const top = 1.12 * Math.max(...heights, ...law.y);
    const low = Math.min(edges[0], ...law.x, ...atoms.map((atom) => atom.value));
    const high = Math.max(edges.at(-1), ...law.x, ...atoms.map((atom) => atom.value));
    const margin = 0.03 * (high - low);
    this.x = scale(low - margin, high + margin, this.box.left, this.box.right);
    this.y = scale(0, top, this.box.bottom, this.box.top);
    this.frame(ticks(low - margin, high + margin, this.box.right - this.box.left, 70), marks(0, top, 5));
    const stairs = heights.map((h, bin) => `L${this.x(edges[bin])} ${this.y(h)}L${this.x(edges[bin + 1])} ${this.y(h)}`);
    const outline = `M${this.x(edges[0])} ${this.y(0)}${stairs.join("")}L${this.x(edges.at(-1))} ${this.y(0)}`;
    this.svg.append(element("path", { class: "bars", d: outline }), element("path", { class: "outline", d: outline }));
    for (const atom of atoms) {
      const at = this.x(atom.value);
      this.svg.append(element("line", { class: "atom", x1: at, x2: at, y1: this.y(0), y2: this.box.top + 16 }));
      const text = label(atomText(atom, size), at + 7, this.box.top + 20, "start");
      text.classList.add("strong");
      this.svg.append(text);
    }
    this.legend.replaceChildren(item("sample"));
    if (!curve) return;
    const polygon = curve.x.map((value, index) => `${this.x(value)} ${this.y(curve.y[index])}`);
    this.svg.append(element("path", { class: "law", d: `M${polygon.join("L")}` }));
    this.legend.append(item("law", "line"));
  }

  drawShares({ atoms, size }) {
    const values = atoms.map((atom) => atom.value);
    const span = Math.max(values.at(-1) - values[0], Math.abs(values[0]), 1e-300);
    this.x = scale(values[0] - 0.6 * span, values.at(-1) + 0.6 * span, this.box.left, this.box.right);
    this.y = scale(0, 1.15, this.box.bottom, this.box.top);
    const shares = [0, 0.25, 0.5, 0.75, 1].map((value) => ({ value, text: `${100 * value} %` }));
    this.frame(values.map((value) => ({ value, text: number(value) })), shares);
    const width = Math.min(56, (this.box.right - this.box.left) / 5);
    for (const atom of atoms) {
      const at = this.x(atom.value);
      const top = this.y(atom.count / size);
      const height = this.box.bottom - top;
      this.svg.append(element("rect", { class: "share", x: at - width / 2, y: top, width, height }));
      const text = label(percent(atom.count / size), at, top - 7, "middle");
      text.classList.add("strong");
      this.svg.append(text);
    }
    this.legend.replaceChildren(item("share of the sample"));
  }

  frame(across, up) {
    const { left, right, top, bottom } = this.box;
    for (const { value, text } of up) {
      const y = Math.round(this.y(value)) + 0.5;
      if (y < top) continue;
      if (value) this.svg.append(element("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }));
      this.svg.append(label(text, left - 8, y + 4, "end"));
    }
    for (const { value, text } of across) {
      const x = Math.round(this.x(value)) + 0.5;
      this.svg.append(element("line", { class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 4 }));
      const half = 3.5 * text.length;
      this.svg.append(label(text, Math.min(Math.max(x, half), this.place.clientWidth - half), bottom + 18, "middle"));
    }
    this.svg.append(element("line", { class: "axis", x1: left, x2: right, y1: bottom + 0.5, y2: bottom + 0.5 }));
  }

  binAt(event) {
    if (!this.data?.counts.length) return -1;
    const value = this.x.inverse(event.clientX - this.place.getBoundingClientRect().left);
    const { edges } = this.data;
    if (value < edges[0] || value > edges.at(-1)) return -1;
    return Math.min(edges.findIndex((edge) => edge > value), edges.length - 1) - 1;
  }

  step(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || !this.data?.counts.length) return;
    event.preventDefault();
    const bins = this.data.counts.length;
    const from = this.selected < 0 ? Math.floor(bins / 2) - move : this.selected;
    this.choose(Math.min(Math.max(from + move, 0), bins - 1));
  }

  choose(bin) {
    this.selected = bin;
    this.updateReadout();
  }

  updateReadout() {
    this.cursor?.remove();
    if (!this.data) {
      this.readout.textContent = "";
      return;
    }
    const { edges, counts, curve, atoms, size } = this.data;
    if (this.selected < 0) {
      const bins = counts.length ? [`${plural(counts.length, "bin")}; hover over one for its count`] : [];
      this.readout.textContent = [...bins, ...atoms.map((atom) => `${count(atom.count)} are ${atomText(atom, size)}`)].join(" · ");
      this.place.setAttribute("aria-label", `Histogram. ${this.readout.textContent}`);
      return;
    }
    const [from, to] = [edges[this.selected], edges[this.selected + 1]];
    const left = this.x(from);
    const { top, bottom } = this.box;
    this.cursor = element("rect", { class: "cursor", x: left, width: this.x(to) - left, y: top, height: bottom - top });
    this.svg.append(this.cursor);
    this.readout.textContent =
      `${fine(from, to - from)} to ${fine(to, to - from)}: ${plural(counts[this.selected], "value")}` +
      (curve ? `, the law expects ${expectation(size * integral(curve, from, to))}` : "");
  }
}

const atomText = (atom, size) => `exactly ${number(atom.value)}: ${percent(atom.count / size)}`;

const expectation = (values) => (values < 10 ? number(values, 2) : count(Math.round(values)));

/** The area under a polygon between two values. */
function integral({ x, y }, from, to) {
  let area = 0;
  for (let i = 0; i + 1 < x.length; i += 1) {
    const [low, high] = [Math.max(from, x[i]), Math.min(to, x[i + 1])];
    if (high <= low) continue;
    const at = (value) => y[i] + ((y[i + 1] - y[i]) * (value - x[i])) / (x[i + 1] - x[i]);
    area += ((at(low) + at(high)) / 2) * (high - low);
  }
  return area;
}

function scale(low, high, from, to) {
  const map = (value) => from + ((value - low) / (high - low)) * (to - from);
  map.inverse = (place) => low + ((place - from) / (to - from)) * (high - low);
  return map;
}

function element(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function label(text, x, y, anchor) {
  const node = element("text", { x, y, "text-anchor": anchor });
  node.textContent = text;
  return node;
}

function item(text, kind = "") {
  const node = document.createElement("li");
  node.textContent = text;
  node.className = kind;
  return node;
}
