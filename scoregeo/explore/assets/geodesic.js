// The geodesic between two points that move: each frame starts from the path of the frame before.

// Newton steps for each solve, and in all before one is given up; milliseconds for a frame while a point is dragged, so
// that frames stay frequent, and at rest. What is not done in one frame goes on in the next.
const STEPS = { dragging: 30, settled: 120, most: 600 };
const TIME = { dragging: 14, settled: 150 };
// How far, in cells of the graph, a path along the graph may be from the one at hand and still count as the same.
const SAME = 2.5;

class LiveGeodesic {
  constructor(view) {
    this.view = view;
    this.nodes = null; // of the path of the last frame
    this.graph = null;
  }

  /** Take another metric; the path at hand stays, to start from. */
  setMetric(metric) {
    this.metric = metric;
    this.graph = null;
  }

  limits(kind) {
    return { maxSteps: STEPS[kind], deadline: performance.now() + TIME[kind] };
  }

  /** The nodes of the shortest path on the coarse grid from a to b, and its length; `root` is the end that rests. */
  alongGraph(a, b, root) {
    this.graph ||= new Graph(this.metric, this.view);
    const [from, to] = root === "b" ? [b, a] : [a, b];
    this.graph.spread(from);
    const { nodes, length } = this.graph.path(to);
    const evenly = smooth(spread(this.metric, nodes).nodes, 2), last = evenly.length - 2;
    if (root === "a") return { nodes: evenly, length };
    return { nodes: evenly.map((_, k) => evenly[k % 2 ? last + 2 - k : last - k]), length };
  }

  /** Whether a path stays within some cells of the graph of the one at hand. */
  isNear(nodes) {
    const away = SAME * this.graph.step, mine = this.nodes;
    for (let i = 0; i < nodes.length; i += 8) {
      let least = Infinity;
      for (let j = 0; j < mine.length; j += 2) {
        least = Math.min(least, Math.hypot(nodes[i] - mine[j], nodes[i + 1] - mine[j + 1]));
      }
      if (least > away) return false;
    }
    return true;
  }

  /**
   * Solve for ends a and b. While `moving` ("a" or "b") only the path of the last frame and the one along the graph
   * are tried; at rest (null) the straight line, too.
   */
  solve(a, b, moving) {
    const starts = [], root = moving === "a" ? "b" : "a";
    if (this.nodes) starts.push({ nodes: moveEnds(this.nodes, a, b), plainly: this.plainly });
    const guess = this.alongGraph(a, b, root);
    const likely = !this.result || !this.result.converged || guess.length < 1.15 * this.result.length;
    if (!this.nodes || (likely && !this.isNear(guess.nodes)) || !this.result.converged) {
      starts.push({ nodes: guess.nodes, plainly: null });
    }
    if (!moving) starts.push({ nodes: straightLine(a, b).nodes, plainly: null });
    this.keep(solveFrom(this.metric, starts, this.limits(moving ? "dragging" : "settled")), 0);
    return this.result;
  }

  /**
   * Take over what a solve has found after so many steps. Where the metric overflows Newton's method takes no step, and
   * more frames would change nothing: all steps count as spent.
   */
  keep(result, spent) {
    this.result = result;
    this.spent = Number.isFinite(result.length) && result.steps > 0 ? spent + result.steps : STEPS.most;
    ({ nodes: this.nodes, plainly: this.plainly } = result);
  }

  /** More steps from the path at hand; false when there is nothing left to do. */
  goOn() {
    if (!this.result || this.result.converged || this.spent >= STEPS.most) return false;
    this.keep(solveFrom(this.metric, [{ nodes: this.nodes, plainly: null }], this.limits("settled")), this.spent);
    return true;
  }

  /** Whether nobody need wait for more. */
  isDone() {
    return this.result.converged || this.spent >= STEPS.most;
  }
}
