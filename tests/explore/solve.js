// Runs the solver of the page under Node.js. Standard input: {about, cases: [{metric, level, ratio, a, b}]}, with `about`
// the data of a page; standard output: for each case {length, converged, done, resolution, strength, nodes, tensor}, and
// derivative checks of the segments.
const fs = require("fs");
const input = JSON.parse(fs.readFileSync(0, "utf8"));
const folder = process.argv[2];
const source = ["field.js", "metric.js", "solver.js", "graph.js", "geodesic.js"]
  .map((name) => fs.readFileSync(`${folder}/${name}`, "utf8")).join("\n");
const { readLevel, makeMetric, LiveGeodesic, TIME } =
  new Function(`"use strict"; ${source}; return { readLevel, makeMetric, LiveGeodesic, TIME };`)();
// Steps end a solve here, never the clock: what is found must not depend on how busy the machine is.
TIME.settled = 1e9;

const about = input.about;
const levels = about.levels.map((record) => readLevel(about.grid, record));

/** The largest errors of the gradient and of the second derivatives of a segment, by central differences. */
function derivativeErrors(metric, ends) {
  const small = 1e-5, own = new Float64Array(14), up = new Float64Array(14), down = new Float64Array(14);
  metric.segment(...ends, own);
  const rows = [[4, 5, 10, 11], [5, 6, 12, 13], [10, 12, 7, 8], [11, 13, 8, 9]];
  let first = 0, second = 0, size = 0;
  for (let k = 0; k < 4; k++) {
    const more = [...ends], less = [...ends];
    more[k] += small;
    less[k] -= small;
    const slope = (metric.segment(...more, up) - metric.segment(...less, down)) / (2 * small);
    first = Math.max(first, Math.abs(slope - own[k]) / Math.max(...own.slice(0, 4).map(Math.abs)));
    for (let m = 0; m < 4; m++) {
      size = Math.max(size, Math.abs(own[rows[k][m]]));
      second = Math.max(second, Math.abs((up[m] - down[m]) / (2 * small) - own[rows[k][m]]));
    }
  }
  return [first, second / size];
}

const results = input.cases.map(({ metric: kind, level, ratio, a, b }) => {
  const { metric, strength } = makeMetric(kind, levels[level], ratio);
  const live = new LiveGeodesic(about.view);
  live.setMetric(metric);
  live.solve(a, b, null);
  // Each frame takes a step at least, so that there are fewer than this.
  for (let frames = 0; frames < 1000 && live.goOn(); frames++);
  const { length, converged, resolution, nodes } = live.result;
  const G = new Float64Array(3);
  metric.tensor(...a, G);
  return { length, converged, done: live.isDone(), resolution, strength, nodes: Array.from(nodes), tensor: [...G],
    derivatives: derivativeErrors(metric, [a[0], a[1], 0.8 * a[0] + 0.2 * b[0], 0.8 * a[1] + 0.2 * b[1]]) };
});
process.stdout.write(JSON.stringify(results));
