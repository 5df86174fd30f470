// The page of two normal distributions: the half-plane of their means and standard deviations, in closed form.

const about = JSON.parse(byId("data").textContent);
const VIEW = [-4, 4, 0, 4], SMALLEST = 0.08;
const points = { a: [...about.start[0]], b: [...about.start[1]] };
const ground = new Picture(byId("ground"), VIEW);
const curves = new Picture(byId("curves"), VIEW);

/** The Fisher-Rao distance of N(m, s^2) and N(n, t^2); of close ones without loss of digits. */
function distance([m, s], [n, t]) {
  return 2 * Math.SQRT2 * Math.asinh(Math.sqrt(((m - n) ** 2 / 2 + (s - t) ** 2) / (4 * s * t)));
}

/** The length of the straight line in the coordinates (m, s). */
function straightLength([m, s], [n, t]) {
  const width = Math.sqrt((m - n) ** 2 + 2 * (s - t) ** 2), rise = (t - s) / s;
  return (width / s) * (Math.abs(rise) < 1e-8 ? 1 : Math.log1p(rise) / rise);
}

/**
 * The geodesic at time `time` in [0, 1], at constant speed. On the hyperboloid geodesics are combinations of their ends;
 * of its coordinates the half-plane needs 1/s and m/s only.
 */
function geodesicAt([m, s], [n, t], time) {
  const whole = distance([m, s], [n, t]) / Math.SQRT2;
  const from = whole > 1e-7 ? Math.sinh((1 - time) * whole) / Math.sinh(whole) : 1 - time;
  const to = whole > 1e-7 ? Math.sinh(time * whole) / Math.sinh(whole) : time;
  const inverse = from / s + to / t;
  return [(from * m / s + to * n / t) / inverse, 1 / inverse];
}

const say = speaker();

function frame() {
  const { a, b } = points, time = Number(byId("time").value);
  const whole = distance(a, b), at = geodesicAt(a, b, time);
  for (const [id, value] of [["geodesic", whole], ["straight", straightLength(a, b)]]) {
    byId(id).value = value.toPrecision(4);
    byId(id).dataset.value = value;
  }
  const isStart = a.every((v, k) => v === about.start[0][k]) && b.every((v, k) => v === about.start[1][k]);
  byId("library").textContent = isStart ? `By the library ${about.length.toPrecision(4)}` : "";
  const middle = `N(${signed(at[0].toFixed(2))}, ${at[1].toFixed(2)}²)`;
  byId("time-value").value = `t = ${time.toFixed(2)}: ${middle}`;
  byId("time").setAttribute("aria-valuetext", `${time.toFixed(2)}, mean ${at[0].toFixed(2)}, deviation ${at[1].toFixed(2)}`);
  draw(a, b, at);
  handles.show();
  say(() => `Fisher-Rao distance ${byId("geodesic").value}, straight line ${byId("straight").value}.`);
}

const requestFrame = onceAFrame(frame);

function draw(a, b, at) {
  const nodes = [];
  for (let i = 0; i <= 100; i++) nodes.push(...geodesicAt(a, b, i / 100));
  curves.clear();
  curves.curve([...a, ...b], colour("straight"), 2, [7, 5]);
  curves.curve(nodes, colour("paper"), 6.5);
  curves.curve(nodes, colour("geodesic"), 3.5);
  const c = curves.context;
  c.beginPath();
  c.arc(curves.x(at[0]), curves.y(at[1]), 6, 0, 2 * Math.PI);
  c.fillStyle = colour("geodesic");
  c.fill();
  c.strokeStyle = colour("paper");
  c.lineWidth = 2;
  c.stroke();
  const density = ([m, s]) => {
    const values = [];
    for (let x = -6; x <= 6.001; x += 0.04) values.push(Math.exp(-(((x - m) / s) ** 2) / 2) / (s * Math.sqrt(2 * Math.PI)));
    return values;
  };
  const between = [0.2, 0.4, 0.6, 0.8].map((t) => ({ values: density(geodesicAt(a, b, t)), style: colour("line"), width: 1.5 }));
  const ends = [a, b].map((p, k) => ({ values: density(p), style: colour("straight"), width: 1.5, dash: k ? [7, 5] : [], label: "AB"[k] }));
  const lines = [...between, ...ends, { values: density(at), style: colour("geodesic"), width: 3 }];
  // The tallest of all on the way, so that the scale rests while the slider moves.
  const most = Math.max(...[...between, ...ends].map(({ values }) => Math.max(...values)));
  chart(byId("densities"), [-6, 6], lines, [0, 1.12 * most]);
}

/** Discs of the metric, at heights that are evenly apart in it. */
function drawGround() {
  ground.clear();
  const c = ground.context;
  c.strokeStyle = colour("ellipse");
  c.lineWidth = 1.1;
  for (let s = 0.25; s < VIEW[3]; s *= 1.5) {
    const columns = Math.max(2, Math.round(7 / s));
    for (let k = 0; k <= columns; k++) {
      const m = VIEW[0] + ((VIEW[1] - VIEW[0]) * (k + 0.5)) / (columns + 1);
      ground.ellipse(m, s, [1 / s ** 2, 0, 2 / s ** 2], 0.25);
    }
  }
  ground.axes("mean m", "standard deviation s");
}

const requestGround = onceAFrame(drawGround);
const handles = new Handles(byId("picture"), curves, points, [VIEW[0], VIEW[1], SMALLEST, VIEW[3]], requestFrame,
  (name, [m, s]) => `Distribution ${name.toUpperCase()}, mean ${m.toFixed(2)}, standard deviation ${s.toFixed(2)}. Arrow keys move it`);

byId("picture").style.aspectRatio = "2 / 1";
byId("time").addEventListener("input", requestFrame);
theme(() => { requestGround(); requestFrame(); });
new ResizeObserver(() => { requestGround(); requestFrame(); }).observe(byId("picture"));

// For tests, and for pages that show this one in a frame.
window.explore = {
  points, distance, straightLength, geodesicAt,
  set(values) { Object.assign(points, values); requestFrame(); },
  /** Whether all is drawn. */
  idle: () => !requestFrame.waiting && !requestGround.waiting,
};
