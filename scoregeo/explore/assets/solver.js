// Geodesics between two points: polygons {nodes, times} whose energy sum q_i / times_i is least, by Newton's method, with
// q_i the squared length of a side and times_i its share of the time (1 in all). The least energy is the squared length.
// The Hessian is block tridiagonal with blocks of 2 x 2, so a step costs a few microseconds for each node.

const SEGMENTS = 96;
// A path is accepted where a Newton step expects to gain this part of its energy, or less.
const TOLERANCE = 1e-7;

/** Energy, gradient and Hessian of a path of nodes x (x0, y0, x1, y1, ...), for given times. */
class PathEnergy {
  constructor(metric, times) {
    const segments = times.length;
    this.metric = metric;
    this.times = times;
    this.segments = segments;
    const inner = segments - 1;
    this.gradient = new Float64Array(2 * inner);
    this.diagonal = new Float64Array(3 * inner);
    this.beside = new Float64Array(4 * inner);
    this.lower = new Float64Array(3 * inner);
    this.weights = new Float64Array(segments);
    this.out = new Float64Array(14);
  }

  value(x) {
    let sum = 0;
    for (let i = 0; i < this.segments; i++) {
      sum += this.metric.segment(x[2 * i], x[2 * i + 1], x[2 * i + 2], x[2 * i + 3], this.out) / this.times[i];
    }
    return sum;
  }

  /** The energy; gradient, diagonal blocks and the blocks beside them are kept. */
  linearise(x) {
    const { gradient: g, diagonal: D, beside: O, out, segments: n } = this;
    g.fill(0); D.fill(0);
    let sum = 0;
    for (let i = 0; i < n; i++) {
      const f = 1 / this.times[i];
      sum += f * this.metric.segment(x[2 * i], x[2 * i + 1], x[2 * i + 2], x[2 * i + 3], out);
      this.weights[i] = f * this.metric.least;
      const a = i - 1, b = i; // inner nodes at the two ends
      if (a >= 0) {
        g[2 * a] += f * out[0]; g[2 * a + 1] += f * out[1];
        for (let k = 0; k < 3; k++) D[3 * a + k] += f * out[4 + k];
      }
      if (b < n - 1) {
        g[2 * b] += f * out[2]; g[2 * b + 1] += f * out[3];
        for (let k = 0; k < 3; k++) D[3 * b + k] += f * out[7 + k];
      }
      if (a >= 0 && b < n - 1) for (let k = 0; k < 4; k++) O[4 * a + k] = f * out[10 + k];
    }
    return sum;
  }

  /**
   * Solve (H + shift K) step = -gradient; false where that matrix is not positive definite. K is the Hessian of the
   * energy if each segment kept the least that the metric costs in it. Block elimination from the first inner node on.
   */
  step(shift, step) {
    const { gradient: g, diagonal: D, beside: O, lower: L, weights: W, segments: n } = this, inner = n - 1;
    const unit = 2 * shift;
    for (let i = 0; i < inner; i++) {
      const onDiagonal = unit * (W[i] + W[i + 1]), besideIt = -unit * W[i];
      let xx = D[3 * i] + onDiagonal, xy = D[3 * i + 1], yy = D[3 * i + 2] + onDiagonal;
      let rx = -g[2 * i], ry = -g[2 * i + 1];
      if (i > 0) {
        const o = 4 * (i - 1), p = O[o] + besideIt, q = O[o + 1], r = O[o + 2], s = O[o + 3] + besideIt;
        const a = L[3 * i - 3], b = L[3 * i - 2], c = L[3 * i - 1]; // inverse of the block before
        const ap = a * p + b * r, aq = a * q + b * s, cp = b * p + c * r, cq = b * q + c * s;
        xx -= p * ap + r * cp; xy -= p * aq + r * cq; yy -= q * aq + s * cq;
        const ux = step[2 * i - 2], uy = step[2 * i - 1];
        rx -= ap * ux + cp * uy; ry -= aq * ux + cq * uy;
      }
      const det = xx * yy - xy * xy;
      if (!(xx > 0 && det > 1e-12 * xx * yy)) return false;
      L[3 * i] = yy / det; L[3 * i + 1] = -xy / det; L[3 * i + 2] = xx / det;
      step[2 * i] = rx; step[2 * i + 1] = ry;
    }
    for (let i = inner - 1; i >= 0; i--) {
      let rx = step[2 * i], ry = step[2 * i + 1];
      if (i < inner - 1) {
        const o = 4 * i, besideIt = -unit * W[i + 1], p = O[o] + besideIt, q = O[o + 1], r = O[o + 2], s = O[o + 3] + besideIt;
        rx -= p * step[2 * i + 2] + q * step[2 * i + 3]; ry -= r * step[2 * i + 2] + s * step[2 * i + 3];
      }
      const a = L[3 * i], b = L[3 * i + 1], c = L[3 * i + 2];
      step[2 * i] = a * rx + b * ry; step[2 * i + 1] = b * rx + c * ry;
    }
    return true;
  }
}

/** Newton's method from a path, whose nodes it changes, for so many steps and until `deadline`; {energy, converged, steps}. */
function minimise(metric, { nodes: x, times }, { maxSteps, deadline }) {
  const energy = new PathEnergy(metric, times);
  const step = new Float64Array(x.length - 4), trial = Float64Array.from(x);
  let value = energy.linearise(x), shift = 0, steps = 0, converged = false;
  while (Number.isFinite(value) && steps < maxSteps && (steps === 0 || performance.now() < deadline)) {
    steps++;
    while (!energy.step(shift, step)) {
      shift = Math.max(4 * shift, 1e-3);
      if (!(shift < 1e9)) return { energy: value, converged: false, steps };
    }
    let gain = 0;
    for (let k = 0; k < step.length; k++) gain -= step[k] * energy.gradient[k];
    if (gain <= TOLERANCE * value && shift <= 1e-3) { converged = true; }
    for (let k = 0; k < step.length; k++) trial[k + 2] = x[k + 2] + step[k];
    const reached = energy.value(trial), share = (value - reached) / (gain / 2);
    if (reached <= value && share > 1e-4) {
      x.set(trial);
      if (converged) return { energy: reached, converged, steps };
      value = energy.linearise(x);
      shift = share > 0.6 ? (shift > 2e-3 ? shift / 5 : 0) : share < 0.2 ? Math.max(3 * shift, 1e-3) : shift;
    } else {
      if (converged) break; // what is left to gain is lost in rounding
      shift = Math.max(4 * shift, 1e-3);
    }
  }
  return { energy: value, converged, steps };
}

const GAUSS = [[0.5 - Math.sqrt(0.15), 5 / 18], [0.5, 8 / 18], [0.5 + Math.sqrt(0.15), 5 / 18]];

/** Velocities at the nodes, by parabolas through three of them. */
function velocities({ nodes: x, times }) {
  const n = times.length, v = new Float64Array(x.length);
  for (let c = 0; c < 2; c++) {
    const slope = (i) => (x[2 * i + 2 + c] - x[2 * i + c]) / times[i];
    for (let i = 1; i < n; i++) {
      v[2 * i + c] = (times[i] * slope(i - 1) + times[i - 1] * slope(i)) / (times[i - 1] + times[i]);
    }
    v[c] = n > 1 ? 2 * slope(0) - v[2 + c] : slope(0);
    v[2 * n + c] = n > 1 ? 2 * slope(n - 1) - v[2 * n - 2 + c] : slope(0);
  }
  return v;
}

/** The length of the smooth curve through the nodes (cubic between them), by Gauss's rule on each segment. */
function curveLength(metric, path) {
  const { nodes: x, times } = path, v = velocities(path), G = new Float64Array(3);
  let length = 0;
  for (let i = 0; i < times.length; i++) {
    const h = times[i], k = 2 * i;
    for (const [t, weight] of GAUSS) {
      const u = 1 - t;
      const a = u * u * (1 + 2 * t), b = t * t * (3 - 2 * t), m = h * t * u * u, w = -h * t * t * u;
      const rise = 6 * t * u, p = h * (1 - 4 * t + 3 * t * t), q = h * (3 * t * t - 2 * t);
      const dx = rise * (x[k + 2] - x[k]) + p * v[k] + q * v[k + 2];
      const dy = rise * (x[k + 3] - x[k + 1]) + p * v[k + 1] + q * v[k + 3];
      metric.tensor(a * x[k] + b * x[k + 2] + m * v[k] + w * v[k + 2],
        a * x[k + 1] + b * x[k + 3] + m * v[k + 1] + w * v[k + 3], G);
      length += weight * Math.sqrt(Math.max(0, G[0] * dx * dx + 2 * G[1] * dx * dy + G[2] * dy * dy));
    }
  }
  return length;
}

/** The straight line from a to b, in equal steps. */
function straightLine(a, b, segments = SEGMENTS) {
  const nodes = new Float64Array(2 * segments + 2);
  for (let i = 0; i <= segments; i++) {
    const t = i / segments;
    nodes[2 * i] = (1 - t) * a[0] + t * b[0];
    nodes[2 * i + 1] = (1 - t) * a[1] + t * b[1];
  }
  return { nodes, times: new Float64Array(segments).fill(1 / segments) };
}

/** Running sums from 0 to 1 of the lengths of the sides of a polygon: by Euclid, and in the metric. */
function runningLengths(metric, x) {
  const count = x.length / 2, G = new Float64Array(3), plain = [0], dear = [0];
  for (let i = 1; i < count; i++) {
    const ax = x[2 * i - 2], ay = x[2 * i - 1], dx = x[2 * i] - ax, dy = x[2 * i + 1] - ay;
    let length = 0;
    for (const t of POINTS) {
      metric.tensor(ax + t * dx, ay + t * dy, G);
      length += Math.sqrt(Math.max(0, G[0] * dx * dx + 2 * G[1] * dx * dy + G[2] * dy * dy)) / 2;
    }
    plain.push(plain[i - 1] + Math.hypot(dx, dy));
    dear.push(dear[i - 1] + length);
  }
  // Equal shares where a length is zero or overflows.
  const share = (sums) => {
    const whole = sums[count - 1], known = whole > 0 && whole < Infinity;
    return sums.map((sum, i) => (known ? sum / whole : i / (count - 1)));
  };
  return [share(plain), share(dear)];
}

/**
 * The path along a polygon x with new nodes, evenly apart in the mean of the metric's length and Euclid's, the latter
 * with weight `plainly`: with 1/2 neither what is dear nor what is far goes without. Times are lengths in the metric.
 */
function spread(metric, x, plainly = 0.5, segments = SEGMENTS) {
  const [plain, dear] = runningLengths(metric, x);
  const nodes = new Float64Array(2 * segments + 2), times = new Float64Array(segments);
  let before = 0;
  for (let i = 0, k = 1; i <= segments; i++) {
    const target = i / segments, at = (j) => plainly * plain[j] + (1 - plainly) * dear[j];
    while (k < plain.length - 1 && at(k) < target) k++;
    const t = Math.min(1, Math.max(0, (target - at(k - 1)) / (at(k) - at(k - 1) || 1)));
    for (let c = 0; c < 2; c++) nodes[2 * i + c] = (1 - t) * x[2 * k - 2 + c] + t * x[2 * k + c];
    const time = (1 - t) * dear[k - 1] + t * dear[k];
    if (i > 0) times[i - 1] = Math.max(time - before, 1e-9);
    before = time;
  }
  const total = times.reduce((a, b) => a + b);
  for (let i = 0; i < segments; i++) times[i] /= total;
  for (let c = 0; c < 2; c++) { nodes[c] = x[c]; nodes[2 * segments + c] = x[x.length - 2 + c]; }
  return { nodes, times };
}

/** Average each inner node of x with its neighbours, some times: a path along a graph has corners. */
function smooth(x, times) {
  for (let k = 0; k < times; k++) {
    const old = Float64Array.from(x);
    for (let i = 2; i < x.length - 2; i++) x[i] = (old[i - 2] + 2 * old[i] + old[i + 2]) / 4;
  }
  return x;
}

/** The path x, moved so that it goes from a to b: its ends by what they lack, the rest in proportion. */
function moveEnds(x, a, b) {
  const n = x.length / 2 - 1, moved = Float64Array.from(x);
  for (let c = 0; c < 2; c++) {
    const first = a[c] - x[c], last = b[c] - x[2 * n + c];
    for (let i = 0; i <= n; i++) moved[2 * i + c] += (1 - i / n) * first + (i / n) * last;
    moved[c] = a[c];
    moved[2 * n + c] = b[c];
  }
  return moved;
}

/** Minimise from a polygon; `plainly` as for `spread`. */
function solve(metric, nodes, plainly, limits) {
  const path = spread(metric, nodes, plainly);
  const found = minimise(metric, path, limits);
  const length = curveLength(metric, path);
  const resolution = length > 0 ? Math.abs(length - Math.sqrt(Math.max(0, found.energy))) / length : 0;
  const converged = found.converged && Number.isFinite(length);
  return { ...path, length, resolution, steps: found.steps, converged, plainly };
}

/**
 * The shortest geodesic that is found from the `starts`, {nodes, plainly}: {nodes, times, length, converged, resolution,
 * steps, plainly}. `resolution` is by what part of its length the polygon and the curve through its nodes differ. Where
 * `plainly` is null, nobody knows yet how the metric's length is spread over the geodesic: it is solved in equal times
 * first, and that stands where the metric varies too much for more. `limits` = {maxSteps, deadline} are for each solve.
 */
function solveFrom(metric, starts, limits) {
  let best = null;
  const size = ({ length }) => (Number.isFinite(length) ? length : Infinity);
  for (const { nodes, plainly } of starts) {
    const first = plainly === null ? solve(metric, nodes, 0, limits) : null;
    let result = solve(metric, first ? first.nodes : nodes, plainly === null ? 0.5 : plainly, limits);
    if (first) result.steps += first.steps;
    if (first && first.converged && !result.converged) result = { ...first, steps: result.steps };
    const better = best === null || (result.converged && !best.converged) ||
      (result.converged === best.converged && size(result) < size(best));
    if (better) best = result;
  }
  return best;
}
