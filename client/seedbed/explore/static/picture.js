// The first rows and columns of the tensor as an image: one cell per element, orange below the centre, blue above it.

import { count, fine, number } from "./format.js";

const LARGEST_CELL = 26;

export class Picture {
  constructor(place, canvas, readout, scale) {
    this.place = place;
    this.canvas = canvas;
    this.readout = readout;
    this.scale = scale;
    this.data = null;
    this.selected = null;
    new ResizeObserver(() => this.draw()).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    canvas.addEventListener("pointermove", (event) => this.choose(this.cellAt(event)));
    canvas.addEventListener("pointerleave", () => this.choose(null));
    canvas.addEventListener("blur", () => this.choose(null));
    canvas.addEventListener("keydown", (event) => this.step(event));
  }

  show(picture) {
    this.data = picture?.rows && picture.columns ? { ...picture, deviations: floats(picture.deviations) } : null;
    this.selected = null;
    this.draw();
  }

  draw() {
    this.canvas.hidden = this.scale.hidden = !this.data;
    if (this.data) {
      const { rows, columns, deviations, center, span } = this.data;
      const colour = colours();
      const image = new ImageData(columns, rows);
      deviations.forEach((deviation, index) => image.data.set(colour(deviation), 4 * index));
      this.canvas.width = columns;
      this.canvas.height = rows;
      this.canvas.getContext("2d").putImageData(image, 0, 0);
      this.fit(rows, columns);
      this.drawScale(colour, center, span);
    }
    this.updateReadout();
  }

  /** Cells are whole screen pixels; otherwise some rows would look wider than others. */
  fit(rows, columns) {
    const density = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.place;
    const fitting = (space, cells) => Math.max(1, Math.floor((space * density) / cells)) / density;
    const most = Math.min(fitting(width, columns), LARGEST_CELL);
    const cell = Math.min(most, fitting(height, rows));
    // A vector would be too thin to see.
    const tall = rows === 1 ? LARGEST_CELL : cell;
    this.canvas.style.width = `${(rows === 1 ? most : cell) * columns}px`;
    this.canvas.style.height = `${tall * rows}px`;
  }

  drawScale(colour, center, span) {
    const [low, strip, high] = this.scale.children;
    const isNarrow = span < 1e-3 * Math.abs(center);
    const end = (sign) => (isNarrow ? `${number(center)} ${sign < 0 ? "−" : "+"} ${number(span, 2)}` : number(center + sign * span, 3));
    low.textContent = end(-1);
    high.textContent = end(1);
    const image = new ImageData(strip.width, 1);
    for (let x = 0; x < strip.width; x += 1) {
      image.data.set(colour((2 * x) / (strip.width - 1) - 1), 4 * x);
    }
    strip.getContext("2d").putImageData(image, 0, 0);
    this.scale.hidden = span === 0;
  }

  cellAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const { rows, columns } = this.data;
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    return { row: clamp(row, rows), column: clamp(column, columns) };
  }

  step(event) {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move || !this.data) return;
    event.preventDefault();
    const { rows, columns } = this.data;
    const from = this.selected;
    this.choose(
      from ? { row: clamp(from.row + move[0], rows), column: clamp(from.column + move[1], columns) } : { row: 0, column: 0 },
    );
  }

  choose(cell) {
    this.selected = cell;
    this.updateReadout();
  }

  updateReadout() {
    if (!this.data) {
      this.readout.textContent = "";
      return;
    }
    const { rows, columns, of, deviations, center, span } = this.data;
    if (this.selected) {
      const { row, column } = this.selected;
      const deviation = deviations[row * columns + column] * span;
      this.readout.textContent = `row ${count(row)}, column ${count(column)}: ${fine(center + deviation, 1e-4 * span)}`;
      return;
    }
    const all = rows === of[0] && columns === of[1];
    const size = `${count(rows)} × ${count(columns)}`;
    this.readout.textContent = all ? size : `the first ${size} of ${count(of[0])} × ${count(of[1])}`;
    this.canvas.setAttribute("aria-label", `The tensor as an image: ${this.readout.textContent}`);
  }
}

const clamp = (index, size) => Math.min(Math.max(index, 0), size - 1);

function floats(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}

/** Maps a deviation from the centre to a colour; 1 has the full colour. */
function colours() {
  const style = getComputedStyle(document.documentElement);
  const [low, zero, high] = ["--low", "--zero", "--high"].map((name) => channels(style.getPropertyValue(name)));
  return (deviation) => {
    const end = deviation < 0 ? low : high;
    const part = Math.min(Math.abs(deviation), 1);
    return [0, 1, 2].map((c) => zero[c] + (end[c] - zero[c]) * part).concat(255);
  };
}

const channels = (colour) => colour.trim().match(/[0-9a-f]{2}/gi).map((digits) => parseInt(digits, 16));
