// Drawing in the plane: a canvas whose coordinates are those of the data, in the colours of the page.

/** A colour of the page, by the name of its variable. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Give a canvas as many pixels as the screen has for it; its context in units of CSS pixels, with its size. */
function fitted(canvas) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const width = canvas.clientWidth, height = canvas.clientHeight;
  const pixels = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== pixels[0] || canvas.height !== pixels[1]) [canvas.width, canvas.height] = pixels;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Numbers at round steps between two others: at most `most` of them. */
function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((k) => k * power >= rough);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}

/** A number, or a word, with the minus sign of typography. */
function signed(value) {
  return `${value}`.replace("-", "−");
}

/** The rectangle `view` = [xlow, xhigh, ylow, yhigh] of the plane on a canvas. */
class Picture {
  constructor(canvas, view) {
    this.canvas = canvas;
    this.view = view;
  }

  clear() {
    Object.assign(this, fitted(this.canvas));
    this.scale = this.width / (this.view[1] - this.view[0]);
  }

  x(x) { return (x - this.view[0]) * this.scale; }

  y(y) { return this.height - (y - this.view[2]) * this.scale; }

  /** A curve through nodes (x0, y0, x1, y1, ...). */
  curve(nodes, style, width, dash = []) {
    const c = this.context;
    c.beginPath();
    for (let i = 0; i < nodes.length; i += 2) c.lineTo(this.x(nodes[i]), this.y(nodes[i + 1]));
    c.setLineDash(dash);
    c.lineJoin = "round";
    c.lineWidth = width;
    c.strokeStyle = style;
    c.stroke();
    c.setLineDash([]);
  }

  /** The ellipse {v: v^T G v = radius^2} about (x, y). */
  ellipse(x, y, G, radius) {
    const mean = (G[0] + G[2]) / 2, half = Math.hypot((G[0] - G[2]) / 2, G[1]);
    const large = mean + half, small = Math.max(mean - half, 1e-12);
    // The eigenvector of the larger eigenvalue, in which the ellipse is short.
    const angle = Math.atan2(2 * G[1], G[0] - G[2]) / 2;
    const c = this.context;
    c.beginPath();
    c.ellipse(this.x(x), this.y(y), (this.scale * radius) / Math.sqrt(large), (this.scale * radius) / Math.sqrt(small),
      -angle, 0, 2 * Math.PI);
    c.stroke();
  }

  /** An arrow about (x, y) in direction (u, v), with its length in the units of the plane. */
  arrow(x, y, u, v, length) {
    const norm = Math.hypot(u, v);
    if (!(norm > 0)) return;
    const c = this.context, dx = (u / norm) * length * this.scale, dy = (-v / norm) * length * this.scale;
    const px = this.x(x) + dx / 2, py = this.y(y) + dy / 2;
    c.beginPath();
    c.moveTo(px - dx, py - dy);
    c.lineTo(px, py);
    c.moveTo(px - 0.35 * dx - 0.2 * dy, py - 0.35 * dy + 0.2 * dx);
    c.lineTo(px, py);
    c.lineTo(px - 0.35 * dx + 0.2 * dy, py - 0.35 * dy - 0.2 * dx);
    c.stroke();
  }

  /** Numbers along the lower and the left edge. */
  axes(xname, yname) {
    const c = this.context;
    c.font = "12px system-ui, sans-serif";
    c.lineWidth = 1;
    const paper = colour("paper"), ink = colour("ink");
    const label = (text, x, y, align) => {
      c.textAlign = align;
      c.lineWidth = 3;
      c.strokeStyle = paper;
      c.strokeText(text, x, y);
      c.fillStyle = ink;
      c.fillText(text, x, y);
    };
    c.textBaseline = "alphabetic";
    const most = Math.max(5, Math.floor(this.width / 90)), [xlow, xhigh, ylow, yhigh] = this.view;
    for (const value of ticks(xlow, xhigh, most)) {
      const x = this.x(value);
      if (x > 34 && x < this.width - 34) this.tick(x, this.height, 0, -5, () => label(signed(value), x, this.height - 8, "center"));
    }
    for (const value of ticks(ylow, yhigh, Math.max(3, Math.floor(this.height / 80)))) {
      const y = this.y(value);
      if (y > 26 && y < this.height - 26) this.tick(0, y, 5, 0, () => label(signed(value), 8, y + 4, "left"));
    }
    label(xname, this.width - 8, this.height - 8, "right");
    label(yname, 8, 16, "left");
  }

  tick(x, y, dx, dy, label) {
    const c = this.context;
    c.beginPath();
    c.moveTo(x, y);
    c.lineTo(x + dx, y + dy);
    c.lineWidth = 1;
    c.strokeStyle = colour("ink");
    c.stroke();
    label();
  }
}

/** Lines on one canvas, with their range beside them: {values, style, dash, width, label}[]; a label stands at the top of its line. */
function chart(canvas, [low, high], lines, range) {
  const { context: c, width, height } = fitted(canvas), left = 44, top = 8, bottom = 20;
  let [least, most] = range || [Infinity, -Infinity];
  if (!range) for (const { values } of lines) for (const v of values) { least = Math.min(least, v); most = Math.max(most, v); }
  if (!(most > least)) { least -= 1; most += 1; }
  if (!range) [least, most] = [least - 0.06 * (most - least), most + 0.06 * (most - least)];
  const x = (k, n) => left + ((width - left - 8) * k) / (n - 1);
  const y = (v) => height - bottom - ((height - top - bottom) * (v - least)) / (most - least);
  c.font = "12px system-ui, sans-serif";
  c.fillStyle = colour("soft");
  c.strokeStyle = colour("line");
  c.lineWidth = 1;
  c.textAlign = "right";
  c.textBaseline = "middle";
  for (const value of ticks(least, most, 4)) {
    c.beginPath();
    c.moveTo(left, y(value));
    c.lineTo(width - 8, y(value));
    c.stroke();
    c.fillText(signed(value), left - 5, y(value));
  }
  c.textBaseline = "alphabetic";
  for (const [text, at, align] of [[low, left, "left"], [high, width - 8, "right"]]) {
    c.textAlign = align;
    c.fillText(signed(text), at, height - 5);
  }
  for (const { values, style, dash = [], width: thick = 2, label = "" } of lines) {
    c.beginPath();
    values.forEach((v, k) => c.lineTo(x(k, values.length), y(v)));
    c.setLineDash(dash);
    c.lineWidth = thick;
    c.strokeStyle = style;
    c.stroke();
    if (!label) continue;
    const highest = values.indexOf(Math.max(...values));
    c.fillStyle = style;
    c.textAlign = "center";
    c.fillText(label, x(highest, values.length), y(values[highest]) - 4);
  }
  c.setLineDash([]);
}
