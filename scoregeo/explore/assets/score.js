// The page of a score: state, what is drawn, and what is said of it.

const NAMES = {
  stein: ["Stein: I + λ s sᵀ", "It charges for changes of log p: going up or down costs, going round is free."],
  power: ["Power of the density: p⁻²ᵇ I", "It charges for being where data are rare, in all directions alike."],
  "score-jacobian": ["Score Jacobian: I + λ σ⁴ JᵀJ", "It charges for leaving the data: for changes of the denoiser’s step σ² s."],
};
const SYMBOLS = { stein: "λ", power: "b", "score-jacobian": "λ" };
// A path whose chords and whose curve differ by more than this is called coarse.
const COARSE = 0.02;

const about = JSON.parse(byId("data").textContent);
const levels = about.levels.map(() => null);
const state = { metric: about.metric, ratio: about.ratio, level: about.level };
const points = { a: [...about.start[0]], b: [...about.start[1]] };
const shown = { density: true, ellipses: true, field: false, points: false };
const data = decodeFloats(about.points);
const live = new LiveGeodesic(about.view);
const ground = new Picture(byId("ground"), about.view);
const curves = new Picture(byId("curves"), about.view);
let current = null; // {metric, strength}
let moving = null; // the end that is being dragged
let stale = true; // whether the ends or the metric have changed since the last solve
let settling = 0; // the timer that ends a drag, 0 for none

const level = () => (levels[state.level] ||= readLevel(about.grid, about.levels[state.level]));
const digits = (value) => (Number.isFinite(value) ? value.toPrecision(4) : "none");

/** The reference that has this metric and these ends, if there is one. */
function referenceHere() {
  const close = (p, q) => Math.hypot(p[0] - q[0], p[1] - q[1]) < 1e-6 * about.grid.step;
  return about.references.find((r) =>
    r.metric === state.metric && r.level === state.level && Math.abs(r.ratio / state.ratio - 1) < 1e-9 &&
    ((close(r.start, points.a) && close(r.end, points.b)) || (close(r.start, points.b) && close(r.end, points.a))));
}

/** What there is to say about a solve that is no plain success; null for one that is. */
function trouble(result) {
  if (!live.isDone()) return "solving";
  if (!result.converged) return "did not converge: the path is the best one found, its length no distance";
  const x = result.nodes;
  for (let i = 0; i < x.length; i += 2) {
    if (!level().logDensity.contains(x[i], x[i + 1])) return "the path leaves the grid, beyond which nothing is known";
  }
  if (result.resolution > COARSE) return `coarse: the path is resolved to ${(100 * result.resolution).toFixed(1)}% only`;
  return null;
}

function compare(result, problem) {
  const reference = referenceHere(), line = byId("library");
  if (!reference) {
    line.textContent = "";
  } else if (reference.length === null) {
    line.textContent = `The library did not converge for this pair (${reference.status}).`;
  } else {
    const gap = result.length / reference.length - 1, percent = (100 * Math.abs(gap)).toFixed(2);
    // Both lengths are those of local geodesics. Grids are not wrong by a percent, so a shorter one is another one.
    const other = gap < -0.01 ? ", perhaps of a longer geodesic" : "";
    const judged = problem ? "" : `${other}: ${percent}% ${gap < 0 ? "less" : "more"} here`;
    line.textContent = `By the library ${digits(reference.length)}${judged}`;
  }
}

const say = speaker();

/** One frame: solve if something has changed, or go on where a solve has not ended; then draw what moves. */
function frame() {
  if (stale) {
    live.solve(points.a, points.b, moving);
    stale = false;
  } else {
    live.goOn();
  }
  const result = live.result, G = current.metric, line = straightLine(points.a, points.b, 192);
  const lengths = { geodesic: result.length, straight: curveLength(G, line),
    euclid: Math.hypot(points.a[0] - points.b[0], points.a[1] - points.b[1]) };
  for (const [name, value] of Object.entries(lengths)) {
    byId(name).value = digits(value);
    byId(name).dataset.value = value;
  }
  const problem = trouble(result);
  const status = byId("status");
  status.textContent = problem || `converged, lengths in ${about.unit}`;
  status.toggleAttribute("data-bad", problem !== null && live.isDone());
  status.dataset.converged = problem === null;
  compare(result, problem);
  draw(result.nodes, line.nodes);
  handles.show();
  if (!live.isDone()) requestFrame();
  say(() => {
    const now = trouble(live.result);
    return `Geodesic ${byId("geodesic").value}, straight line ${byId("straight").value}. ${now || "Converged"}.`;
  });
}

const requestFrame = onceAFrame(frame);

function draw(nodes, line) {
  curves.clear();
  curves.curve(line, colour("straight"), 2, [7, 5]);
  curves.curve(nodes, colour("paper"), 6.5);
  curves.curve(nodes, colour("geodesic"), 3.5);
  const along = (x) => {
    const jet = [0], values = [];
    for (let i = 0; i < x.length; i += 2) {
      level().logDensity.jet(x[i], x[i + 1], 0, jet);
      values.push(jet[0]);
    }
    return values;
  };
  chart(byId("profile"), ["A", "B"], [
    { values: along(line), style: colour("straight"), dash: [7, 5] },
    { values: along(nodes), style: colour("geodesic"), width: 3 },
  ]);
}

/** The density as an image of its own, darker (in the dark: brighter) where it is larger; made again when it changes. */
function densityImage() {
  const [xlow, xhigh, ylow, yhigh] = about.view, width = 256, height = Math.round((width * (yhigh - ylow)) / (xhigh - xlow));
  const [low, high] = ["low", "high"].map((name) => colour(name).split(",").map(Number));
  const values = new Float64Array(width * height), jet = [0];
  let most = -Infinity;
  for (let j = 0, k = 0; j < height; j++) {
    for (let i = 0; i < width; i++, k++) {
      level().logDensity.jet(xlow + ((i + 0.5) / width) * (xhigh - xlow), yhigh - ((j + 0.5) / height) * (yhigh - ylow), 0, jet);
      values[k] = jet[0];
      most = Math.max(most, jet[0]);
    }
  }
  const image = document.createElement("canvas");
  [image.width, image.height] = [width, height];
  const pixels = new ImageData(width, height);
  for (let k = 0; k < values.length; k++) {
    const share = Math.exp((values[k] - most) / 2); // the square root of the density
    for (let c = 0; c < 3; c++) pixels.data[4 * k + c] = low[c] + share * (high[c] - low[c]);
    pixels.data[4 * k + 3] = 255;
  }
  image.getContext("2d").putImageData(pixels, 0, 0);
  return image;
}

/** Centres of square cells, `n` along the longer side, and the side of a cell. */
function cells(n) {
  const [xlow, xhigh, ylow, yhigh] = about.view, side = Math.max(xhigh - xlow, yhigh - ylow) / n, centres = [];
  const nx = Math.round((xhigh - xlow) / side), ny = Math.round((yhigh - ylow) / side);
  for (let j = 0; j < ny; j++) {
    for (let i = 0; i < nx; i++) {
      centres.push([xlow + ((i + 0.5) / nx) * (xhigh - xlow), ylow + ((j + 0.5) / ny) * (yhigh - ylow)]);
    }
  }
  return { side, centres };
}

let image = { key: "", canvas: null };

/** What lies below the curves, drawn only when the settings change. */
function drawGround() {
  ground.clear();
  const c = ground.context;
  if (shown.density) {
    const key = `${state.level} ${document.documentElement.dataset.theme}`;
    if (image.key !== key) image = { key, canvas: densityImage() };
    c.imageSmoothingEnabled = true;
    c.drawImage(image.canvas, 0, 0, ground.width, ground.height);
  }
  if (shown.points) {
    c.fillStyle = colour("dot");
    c.globalAlpha = 0.55;
    for (let i = 0; i < data.length; i += 2) {
      c.beginPath();
      c.arc(ground.x(data[i]), ground.y(data[i + 1]), 1.6, 0, 2 * Math.PI);
      c.fill();
    }
    c.globalAlpha = 1;
  }
  if (shown.field) {
    const { side, centres } = cells(22), jet = new Float64Array(10);
    c.strokeStyle = colour("arrow");
    c.lineWidth = 1.3;
    for (const [x, y] of centres) {
      level().logDensity.jet(x, y, 1, jet);
      let [u, v] = [jet[1], jet[2]];
      if (!level().conservative) {
        level().score.forEach((part, k) => { part.jet(x, y, 0, jet); if (k) v = jet[0]; else u = jet[0]; });
      }
      ground.arrow(x, y, u, v, 0.7 * side);
    }
  }
  if (shown.ellipses) drawEllipses();
  ground.axes(about.axes[0], about.axes[1]);
}

function drawEllipses() {
  const { side, centres } = cells(16), G = new Float64Array(3);
  const tensors = centres.map(([x, y]) => { current.metric.tensor(x, y, G); return [...G]; });
  const least = tensors.map(([p, q, r]) => (p + r) / 2 - Math.hypot((p - r) / 2, q)).reduce((a, b) => Math.min(a, b));
  const c = ground.context;
  c.strokeStyle = colour("ellipse");
  c.lineWidth = 1.1;
  // The longest ellipse just fits its cell.
  centres.forEach(([x, y], k) => ground.ellipse(x, y, tensors[k], 0.46 * side * Math.sqrt(Math.max(least, 1e-12))));
}

const requestGround = onceAFrame(drawGround);

/** Take over what has changed in `state`, and show it in the controls. */
function settingsChanged() {
  current = makeMetric(state.metric, level(), state.ratio);
  live.setMetric(current.metric);
  byId("metric").value = state.metric;
  byId("formula").textContent =
    `${NAMES[state.metric][1]} Here ${SYMBOLS[state.metric]} = ${current.strength.toPrecision(3)}.`;
  byId("ratio").value = Math.log10(state.ratio);
  const ratio = state.ratio.toPrecision(3), noise = about.levels[state.level].noise;
  byId("ratio-value").value = `${Number(ratio)}`;
  byId("ratio").setAttribute("aria-valuetext", `${Number(ratio)} times`);
  byId("noise").value = state.level;
  byId("noise-value").value = noise === null ? "" : `σ = ${Number(noise.toPrecision(3))}`;
  byId("noise").setAttribute("aria-valuetext", noise === null ? "" : `sigma ${Number(noise.toPrecision(3))}`);
  requestGround();
  changed(null);
}

/** An end or the metric has changed; while one is dragged, fewer starts are tried. */
function changed(name) {
  stale = true;
  moving = name;
  requestFrame();
  clearTimeout(settling);
  settling = 0;
  if (name) settling = setTimeout(() => { settling = 0; changed(null); }, 150);
}

const handles = new Handles(byId("picture"), curves, points, about.view,
  (name, dragging) => changed(dragging || handles.dragged ? name : null),
  (name, [x, y]) => `Point ${name.toUpperCase()} at ${x.toFixed(2)}, ${y.toFixed(2)}. Arrow keys move it`);

function goTo(reference) {
  Object.assign(state, { metric: reference.metric, level: reference.level, ratio: reference.ratio });
  points.a = [...reference.start];
  points.b = [...reference.end];
  live.nodes = null;
  settingsChanged();
}

function connectControls() {
  for (const kind of about.metrics) byId("metric").add(new Option(NAMES[kind][0], kind));
  const absent = Object.entries(about.absent);
  byId("absent").hidden = absent.length === 0;
  byId("absent").textContent = absent.map(([kind, why]) => `Not here: ${NAMES[kind][0].split(":")[0]}, because ${why}.`).join(" ");
  byId("metric").addEventListener("change", () => { state.metric = byId("metric").value; settingsChanged(); });
  byId("ratio").addEventListener("input", () => { state.ratio = 10 ** Number(byId("ratio").value); settingsChanged(); });
  byId("noise").max = about.levels.length - 1;
  byId("noise-group").hidden = about.levels.length < 2;
  byId("noise").addEventListener("input", () => { state.level = Number(byId("noise").value); settingsChanged(); });
  for (const name of Object.keys(shown)) {
    byId(name).checked = shown[name];
    byId(name).addEventListener("change", () => { shown[name] = byId(name).checked; requestGround(); });
  }
  byId("reference-group").hidden = about.references.length === 0;
  byId("reference").add(new Option("Choose a pair", ""));
  about.references.forEach((r, k) => {
    const length = r.length === null ? "not converged" : digits(r.length);
    byId("reference").add(new Option(`${NAMES[r.metric][0].split(":")[0]}, ratio ${Number(r.ratio.toPrecision(3))}: ${length}`, k));
  });
  byId("reference").addEventListener("change", () => {
    if (byId("reference").value !== "") goTo(about.references[Number(byId("reference").value)]);
  });
}

byId("picture").style.aspectRatio = `${about.view[1] - about.view[0]} / ${about.view[3] - about.view[2]}`;
byId("segments").textContent = SEGMENTS;
byId("accuracy").textContent = `On this grid splines miss the score by ${(100 * about.missed).toPrecision(1)}% in the median.`;
byId("plane").hidden = about.plane === null;
byId("plane").textContent = about.dimension === 2 ? `The coordinates u₁ and u₂ are those of ${about.plane}.` :
  `What is shown is a slice of ${about.dimension} dimensions: ${about.plane}. Geodesics are those of ` +
  "the slice, in the metric that it inherits; in all dimensions there may be shorter ones.";
connectControls();
settingsChanged();
theme(() => { requestGround(); requestFrame(); });
new ResizeObserver(() => { requestGround(); requestFrame(); }).observe(byId("picture"));

// For tests, and for pages that show this one in a frame.
window.explore = {
  state, points, live,
  set(values) {
    for (const name of ["metric", "ratio", "level"]) if (name in values) state[name] = values[name];
    for (const name of ["a", "b"]) if (name in values) points[name] = [...values[name]];
    live.nodes = null;
    settingsChanged();
  },
  /** Whether the page has solved for where its points are, and all is drawn. */
  idle: () => !stale && !settling && live.result !== undefined && live.isDone() &&
    !requestFrame.waiting && !requestGround.waiting,
};
