// Formatting of numbers.

export const count = (value) => value.toLocaleString("en");

/** At most six significant digits, with an exponent where a plain number would be mostly zeros. */
export function number(value, digits = 6) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e7) return minus(value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e"));
  const plain = value.toPrecision(digits);
  return minus(plain.includes(".") ? plain.replace(/\.?0+$/, "") : plain);
}

/** With enough digits to distinguish values that are this far apart. */
export function fine(value, spacing) {
  const digits = 2 + Math.ceil(Math.log10(Math.abs(value / spacing)));
  return number(value, Number.isFinite(digits) ? Math.min(Math.max(digits, 4), 16) : 6);
}

export const percent = (share) => `${number(100 * share, 4)} %`;

export const plural = (size, noun) => `${count(size)} ${noun}${size === 1 ? "" : "s"}`;

/** Round values across a range, with labels that distinguish them, as many as fit. */
export function ticks(low, high, pixels, spacing) {
  let labels = marks(low, high, pixels / spacing);
  for (let count = 3; labels.length < 3 && count < 9; count += 1) labels = marks(low, high, count);
  const widest = 16 + 7 * Math.max(...labels.map(({ text }) => text.length), 0);
  return widest > spacing ? marks(low, high, pixels / widest) : labels;
}

export function marks(low, high, approximateCount) {
  const minimum = (high - low) / approximateCount;
  const power = 10 ** Math.floor(Math.log10(minimum));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= minimum) ?? 10);
  const values = [];
  for (let index = Math.ceil(low / step); index * step <= high * (1 + 1e-12) + step * 1e-9; index += 1) {
    values.push(index * step);
  }
  const largest = Math.max(Math.abs(low), Math.abs(high));
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const plain = largest < 1e6 && (decimals < 6 || largest > 1e-3);
  const digits = Math.max(0, Math.floor(Math.log10(largest) + 1e-9) - Math.floor(Math.log10(step) + 1e-9));
  const text = (value) => {
    if (Math.abs(value) < step / 2) return "0";
    return minus(plain ? value.toFixed(decimals) : value.toExponential(Math.min(digits, 15)).replace("e+", "e"));
  };
  return values.map((value) => ({ value, text: text(value) }));
}

const minus = (text) => text.replaceAll("-", "−");
