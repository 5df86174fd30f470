// The metrics of the page. Each has
//   tensor(x, y, out)             G(x) = [[out0, out1], [out1, out2]]
//   segment(ax, ay, bx, by, out)  returns q, the squared length of a short straight segment from a to b, by Gauss's
//                                 rule with two points; writes to `out` its gradient (a_x, a_y, b_x, b_y), then its
//                                 second derivatives: aa (xx, xy, yy), bb (xx, xy, yy), ab (x_a x_b, x_a y_b, y_a x_b,
//                                 y_a y_b). With one point, or the ends alone, a path can jump over what is narrow.
//   least                         the least that the metric costs in any direction on the segment that was asked for last

const POINTS = [0.5 - Math.sqrt(1 / 12), 0.5 + Math.sqrt(1 / 12)];

/** Euclid's part of a segment; everything else is added to it. */
function euclideanSegment(dx, dy, out) {
  out[0] = -2 * dx; out[1] = -2 * dy; out[2] = 2 * dx; out[3] = 2 * dy;
  out[4] = 2; out[5] = 0; out[6] = 2;
  out[7] = 2; out[8] = 0; out[9] = 2;
  out[10] = -2; out[11] = 0; out[12] = 0; out[13] = -2;
  return dx * dx + dy * dy;
}

/**
 * Add weight (s . d)^2 for the step d = b - a, with a field s = (s1, s2) at a + t d: S and T have s1 and s2, each with
 * its derivatives (x, y; xx, xy, yy).
 */
function addForm(weight, t, dx, dy, S, T, out) {
  const u = 1 - t, c = 2 * weight, r = S[0] * dx + T[0] * dy;
  // The transposed Jacobian times the step, and the second derivatives of s . d with d held fast.
  const ux = S[1] * dx + T[1] * dy, uy = S[2] * dx + T[2] * dy;
  const qxx = S[3] * dx + T[3] * dy, qxy = S[4] * dx + T[4] * dy, qyy = S[5] * dx + T[5] * dy;
  const pax = u * ux - S[0], pay = u * uy - T[0], pbx = t * ux + S[0], pby = t * uy + T[0];
  const cr = c * r, sym = S[2] + T[1];
  out[0] += cr * pax; out[1] += cr * pay; out[2] += cr * pbx; out[3] += cr * pby;
  out[4] += c * pax * pax + cr * u * (u * qxx - 2 * S[1]);
  out[5] += c * pax * pay + cr * u * (u * qxy - sym);
  out[6] += c * pay * pay + cr * u * (u * qyy - 2 * T[2]);
  out[7] += c * pbx * pbx + cr * t * (t * qxx + 2 * S[1]);
  out[8] += c * pbx * pby + cr * t * (t * qxy + sym);
  out[9] += c * pby * pby + cr * t * (t * qyy + 2 * T[2]);
  out[10] += c * pax * pbx + cr * (u * t * qxx + (u - t) * S[1]);
  out[11] += c * pax * pby + cr * (u * t * qxy + u * T[1] - t * S[2]);
  out[12] += c * pay * pbx + cr * (u * t * qxy + u * S[2] - t * T[1]);
  out[13] += c * pay * pby + cr * (u * t * qyy + (u - t) * T[2]);
  return weight * r * r;
}

/** The metrics G = I + weight sum_k s_k s_k^T of some fields s_k: those that `fieldsAt` writes. */
class SumOfForms {
  constructor(weight, count) {
    this.weight = weight;
    this.least = 1;
    this.fields = Array.from({ length: count }, () => [new Float64Array(10), new Float64Array(10)]);
  }

  tensor(x, y, out) {
    this.fieldsAt(x, y, 0);
    out[0] = 1; out[1] = 0; out[2] = 1;
    for (const [S, T] of this.fields) {
      out[0] += this.weight * S[0] * S[0]; out[1] += this.weight * S[0] * T[0]; out[2] += this.weight * T[0] * T[0];
    }
  }

  segment(ax, ay, bx, by, out) {
    const dx = bx - ax, dy = by - ay;
    let q = euclideanSegment(dx, dy, out);
    for (const t of POINTS) {
      this.fieldsAt(ax + t * dx, ay + t * dy, 2);
      for (const [S, T] of this.fields) q += addForm(this.weight / 2, t, dx, dy, S, T, out);
    }
    return q;
  }
}

/** The gradient of a function, from its jet f, as a field: both components with their derivatives, into S and T. */
function gradientField(f, S, T) {
  S[0] = f[1]; S[1] = f[3]; S[2] = f[4]; S[3] = f[6]; S[4] = f[7]; S[5] = f[8];
  T[0] = f[2]; T[1] = f[4]; T[2] = f[5]; T[3] = f[7]; T[4] = f[8]; T[5] = f[9];
}

/** G = I + strength s s^T. The score s is the gradient of log p, or its own splines where it is none (curl). */
class Stein extends SumOfForms {
  constructor(level, strength) {
    super(strength, 1);
    this.level = level;
    this.jet = new Float64Array(10);
  }

  fieldsAt(x, y, order) {
    const [[S, T]] = this.fields;
    if (this.level.conservative) {
      this.level.logDensity.jet(x, y, order + 1, this.jet);
      gradientField(this.jet, S, T);
    } else {
      this.level.score[0].jet(x, y, order, S);
      this.level.score[1].jet(x, y, order, T);
    }
  }
}

/** G = I + strength noise^4 J^T J, J the Jacobian of the score: the fields are the gradients of its components. */
class ScoreJacobian extends SumOfForms {
  constructor(level, strength) {
    super(strength * level.noise ** 4, 2);
    this.level = level;
    this.jet = new Float64Array(10);
  }

  fieldsAt(x, y, order) {
    for (let k = 0; k < 2; k++) {
      this.level.score[k].jet(x, y, order + 1, this.jet);
      gradientField(this.jet, this.fields[k][0], this.fields[k][1]);
    }
  }
}

/** G = p^(-2 exponent) I, one where -log p is `energy`. */
class PowerOfDensity {
  constructor(level, exponent, energy) {
    this.logDensity = level.logDensity;
    this.exponent = exponent;
    this.energy = energy;
    this.jet = new Float64Array(10);
  }

  tensor(x, y, out) {
    this.logDensity.jet(x, y, 0, this.jet);
    out[0] = out[2] = Math.exp(-2 * this.exponent * (this.jet[0] + this.energy));
    out[1] = 0;
  }

  segment(ax, ay, bx, by, out) {
    const dx = bx - ax, dy = by - ay, d2 = dx * dx + dy * dy, f = this.jet, k = -2 * this.exponent;
    let q = 0;
    out.fill(0);
    for (const t of POINTS) {
      const u = 1 - t;
      this.logDensity.jet(ax + t * dx, ay + t * dy, 2, f);
      const w = Math.exp(k * (f[0] + this.energy)) / 2;
      const wx = w * k * f[1], wy = w * k * f[2];
      const hxx = w * k * (k * f[1] * f[1] + f[3]) * d2;
      const hxy = w * k * (k * f[1] * f[2] + f[4]) * d2;
      const hyy = w * k * (k * f[2] * f[2] + f[5]) * d2;
      const mixed = wx * dy + wy * dx;
      out[0] += u * wx * d2 - 2 * w * dx; out[1] += u * wy * d2 - 2 * w * dy;
      out[2] += t * wx * d2 + 2 * w * dx; out[3] += t * wy * d2 + 2 * w * dy;
      out[4] += u * u * hxx - 4 * u * wx * dx + 2 * w;
      out[5] += u * u * hxy - 2 * u * mixed;
      out[6] += u * u * hyy - 4 * u * wy * dy + 2 * w;
      out[7] += t * t * hxx + 4 * t * wx * dx + 2 * w;
      out[8] += t * t * hxy + 2 * t * mixed;
      out[9] += t * t * hyy + 4 * t * wy * dy + 2 * w;
      out[10] += u * t * hxx + 2 * (u - t) * wx * dx - 2 * w;
      out[11] += u * t * hxy + 2 * (u * wx * dy - t * dx * wy);
      out[12] += u * t * hxy + 2 * (u * wy * dx - t * dy * wx);
      out[13] += u * t * hyy + 2 * (u - t) * wy * dy - 2 * w;
      q += w * d2;
      this.least = w + (t === POINTS[0] ? 0 : this.least);
    }
    return q;
  }
}

/** The metric `kind` that costs `ratio` times as much off the data as on them at `level`: {metric, strength}. */
function makeMetric(kind, level, ratio) {
  if (kind === "power") {
    const strength = level.power.exponent * Math.log(ratio);
    return { metric: new PowerOfDensity(level, strength, level.power.energy), strength };
  }
  if (kind === "score-jacobian") return { metric: new ScoreJacobian(level, ratio - 1), strength: ratio - 1 };
  const strength = level.stein * (ratio - 1);
  return { metric: new Stein(level, strength), strength };
}

/** A noise level of the page's data, with its fields decoded. */
function readLevel(grid, record) {
  const field = (text) => new Field(grid, decodeFloats(text));
  return {
    ...record,
    logDensity: field(record.logDensity),
    score: record.score ? record.score.map(field) : null,
  };
}
