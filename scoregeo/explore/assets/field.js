// Functions on a regular grid of the plane, as cubic B-splines: twice continuously differentiable.

/** Decode base64 to float32. */
function decodeFloats(text) {
  const bytes = atob(text);
  const buffer = new Uint8Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) buffer[i] = bytes.charCodeAt(i);
  return new Float32Array(buffer.buffer);
}

/** Cubic B-spline weights at t in [0, 1] and their first three derivatives, into w[0..15]. */
function splineWeights(t, h, w) {
  const u = 1 - t;
  w[0] = u * u * u / 6;
  w[1] = (3 * t * t * t - 6 * t * t + 4) / 6;
  w[2] = (3 * u * u * u - 6 * u * u + 4) / 6;
  w[3] = t * t * t / 6;
  w[4] = -u * u / (2 * h);
  w[5] = (3 * t * t - 4 * t) / (2 * h);
  w[6] = -(3 * u * u - 4 * u) / (2 * h);
  w[7] = t * t / (2 * h);
  const hh = h * h;
  w[8] = u / hh;
  w[9] = (3 * t - 2) / hh;
  w[10] = (3 * u - 2) / hh;
  w[11] = t / hh;
  const hhh = hh * h;
  w[12] = -1 / hhh;
  w[13] = 3 / hhh;
  w[14] = -3 / hhh;
  w[15] = 1 / hhh;
}

// Derivatives in the order of a jet: value; x, y; xx, xy, yy; xxx, xxy, xyy, yyy. How many belong to each order.
const JET_X = [0, 1, 0, 2, 1, 0, 3, 2, 1, 0];
const JET_Y = [0, 0, 1, 0, 1, 2, 0, 1, 2, 3];
const JET_SIZE = [1, 3, 6, 10];

/** A spline by its coefficients, row by row from the lower left corner of `grid` = {x, y, step, nx, ny}. */
class Field {
  constructor(grid, coefficients) {
    this.grid = grid;
    this.coefficients = coefficients;
    this.wx = new Float64Array(16);
    this.wy = new Float64Array(16);
    this.rows = new Float64Array(16);
  }

  /** The value and its derivatives up to `order` (0 to 3) at (x, y), into `out`. Outside, the last cell goes on. */
  jet(x, y, order, out) {
    const { nx, ny, step } = this.grid;
    const c = this.coefficients, wx = this.wx, wy = this.wy, rows = this.rows;
    const u = (x - this.grid.x) / step, v = (y - this.grid.y) / step;
    const i = Math.min(Math.max(Math.floor(u), 1), nx - 3), j = Math.min(Math.max(Math.floor(v), 1), ny - 3);
    splineWeights(u - i, step, wx);
    splineWeights(v - j, step, wy);
    for (let d = 0; d <= order; d++) {
      for (let r = 0; r < 4; r++) {
        const k = (j - 1 + r) * nx + i - 1;
        rows[4 * d + r] =
          wx[4 * d] * c[k] + wx[4 * d + 1] * c[k + 1] + wx[4 * d + 2] * c[k + 2] + wx[4 * d + 3] * c[k + 3];
      }
    }
    for (let n = 0; n < JET_SIZE[order]; n++) {
      const a = 4 * JET_X[n], b = 4 * JET_Y[n];
      out[n] = rows[a] * wy[b] + rows[a + 1] * wy[b + 1] + rows[a + 2] * wy[b + 2] + rows[a + 3] * wy[b + 3];
    }
  }

  /** Whether (x, y) is where the grid has its cells. */
  contains(x, y) {
    const { nx, ny, step } = this.grid;
    const u = (x - this.grid.x) / step, v = (y - this.grid.y) / step;
    return u >= 1 && v >= 1 && u <= nx - 2 && v <= ny - 2;
  }
}
