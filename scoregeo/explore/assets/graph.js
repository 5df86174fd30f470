// Shortest paths on a coarse grid: they know on which side of everything the shortest geodesic passes.

const MOVES = [[1, 0], [0, 1], [1, 1], [1, -1], [2, 1], [1, 2], [2, -1], [1, -2]];

/** The grid over the rectangle [xlow, xhigh] x [ylow, yhigh] with the cost in `metric` of each of its moves. */
class Graph {
  constructor(metric, [xlow, xhigh, ylow, yhigh], cells = 56) {
    this.step = Math.max(xhigh - xlow, yhigh - ylow) / cells;
    this.x = xlow;
    this.y = ylow;
    this.nx = Math.max(2, Math.round((xhigh - xlow) / this.step) + 1);
    this.ny = Math.max(2, Math.round((yhigh - ylow) / this.step) + 1);
    this.metric = metric;
    this.G = new Float64Array(3);
    const { nx, ny, step, G } = this, tensors = new Float64Array(3 * nx * ny);
    for (let k = 0; k < nx * ny; k++) {
      metric.tensor(xlow + (k % nx) * step, ylow + Math.floor(k / nx) * step, G);
      tensors.set(G, 3 * k);
    }
    // A move costs the mean of what it costs in the metrics of its two ends.
    this.costs = new Float64Array(MOVES.length * nx * ny).fill(Infinity);
    MOVES.forEach(([p, q], m) => {
      const length = (k) =>
        step * Math.sqrt(Math.max(0, tensors[k] * p * p + 2 * tensors[k + 1] * p * q + tensors[k + 2] * q * q));
      for (let j = Math.max(0, -q); j < ny - Math.max(0, q); j++) {
        for (let i = 0; i < nx - p; i++) {
          const node = j * nx + i;
          this.costs[node * MOVES.length + m] = (length(3 * node) + length(3 * (node + q * nx + p))) / 2;
        }
      }
    });
    this.root = null;
  }

  point(i, j) {
    return [this.x + i * this.step, this.y + j * this.step];
  }

  cost([ax, ay], [bx, by]) {
    const G = this.G, dx = bx - ax, dy = by - ay;
    let sum = 0;
    for (const t of [0.25, 0.75]) {
      this.metric.tensor(ax + t * dx, ay + t * dy, G);
      sum += Math.sqrt(Math.max(0, G[0] * dx * dx + 2 * G[1] * dx * dy + G[2] * dy * dy)) / 2;
    }
    return sum;
  }

  /** The nodes at the corners of the cell of a point. */
  corners([x, y]) {
    const i = Math.min(Math.max(Math.floor((x - this.x) / this.step), 0), this.nx - 2);
    const j = Math.min(Math.max(Math.floor((y - this.y) / this.step), 0), this.ny - 2);
    return [[i, j], [i + 1, j], [i, j + 1], [i + 1, j + 1]];
  }

  /** Shortest ways from the point `root` to all nodes (Dijkstra 1959); kept until another root is asked for. */
  spread(root) {
    if (this.root && this.root[0] === root[0] && this.root[1] === root[1]) return;
    this.root = [...root];
    const count = this.nx * this.ny;
    this.lengths = new Float64Array(count).fill(Infinity);
    this.before = new Int32Array(count).fill(-1);
    const heap = new Heap(this.lengths);
    for (const [i, j] of this.corners(root)) {
      const node = j * this.nx + i;
      this.lengths[node] = this.cost(root, this.point(i, j));
      heap.push(node);
    }
    for (let node = heap.pop(); node >= 0; node = heap.pop()) {
      const i = node % this.nx, j = (node - i) / this.nx;
      for (let m = 0; m < MOVES.length; m++) {
        for (let sign = -1; sign <= 1; sign += 2) {
          const k = i + sign * MOVES[m][0], l = j + sign * MOVES[m][1];
          if (k < 0 || l < 0 || k >= this.nx || l >= this.ny) continue;
          const next = l * this.nx + k;
          const reached = this.lengths[node] + this.costs[(sign > 0 ? node : next) * MOVES.length + m];
          if (reached < this.lengths[next]) {
            this.lengths[next] = reached;
            this.before[next] = node;
            heap.push(next);
          }
        }
      }
    }
  }

  /** The way from the root to a point: {nodes, length}. */
  path(end) {
    let best = -1, length = Infinity;
    for (const [i, j] of this.corners(end)) {
      const node = j * this.nx + i, whole = this.lengths[node] + this.cost(this.point(i, j), end);
      if (whole < length) { best = node; length = whole; }
    }
    const direct = this.cost(this.root, end);
    const near = Math.hypot(end[0] - this.root[0], end[1] - this.root[1]) < 3 * this.step;
    if (best < 0 || (near && direct <= length)) return { nodes: [...this.root, ...end], length: direct };
    const points = [[...end]];
    for (let node = best; node >= 0; node = this.before[node]) {
      points.push(this.point(node % this.nx, Math.floor(node / this.nx)));
    }
    points.push(this.root);
    return { nodes: points.reverse().flat(), length };
  }
}

/** A binary heap of nodes by `keys`. Keys only fall: a node that falls is pushed again, and its old place is stale. */
class Heap {
  constructor(keys) {
    this.keys = keys;
    this.nodes = [];
    this.values = [];
  }

  push(node) {
    const { nodes, values } = this, value = this.keys[node];
    let i = nodes.length;
    for (let up; i > 0 && values[(up = (i - 1) >> 1)] > value; i = up) { nodes[i] = nodes[up]; values[i] = values[up]; }
    nodes[i] = node;
    values[i] = value;
  }

  pop() {
    const { nodes, values } = this;
    while (nodes.length) {
      const node = nodes[0], value = values[0], last = nodes.pop(), lastValue = values.pop();
      const count = nodes.length;
      if (count) {
        let i = 0;
        for (let down; (down = 2 * i + 1) < count; i = down) {
          if (down + 1 < count && values[down + 1] < values[down]) down++;
          if (values[down] >= lastValue) break;
          nodes[i] = nodes[down];
          values[i] = values[down];
        }
        nodes[i] = last;
        values[i] = lastValue;
      }
      if (value <= this.keys[node]) return node;
    }
    return -1;
  }
}
