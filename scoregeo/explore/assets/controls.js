// What both pages share: points to drag, colours, frames, and what is spoken.

const byId = (id) => document.getElementById(id);

/** Light or dark: what the system asks for, until somebody says otherwise. Calls `redraw` on changes. */
function theme(redraw) {
  const dark = window.matchMedia("(prefers-color-scheme: dark)"), button = byId("theme");
  let chosen = null;
  const apply = () => {
    const now = chosen || (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = now;
    button.textContent = now === "dark" ? "Light colours" : "Dark colours";
    redraw();
  };
  dark.addEventListener("change", apply);
  button.addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    apply();
  });
  apply();
}

/** A function that asks for one frame, however often it is called before that; `waiting` says whether it is to come. */
function onceAFrame(draw) {
  const ask = () => {
    if (ask.waiting) return;
    ask.waiting = true;
    requestAnimationFrame(() => { ask.waiting = false; draw(); });
  };
  ask.waiting = false;
  return ask;
}

/** Read a text aloud, once nothing has changed for half a second. */
function speaker() {
  let timer = 0;
  return (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => { byId("spoken").textContent = text(); }, 500);
  };
}

/**
 * Buttons that stand for points of the plane: dragged by mouse, pen or finger, moved by arrow keys; a click beside them
 * moves the nearer one there. `points` is {a: [x, y], b: [x, y]}, `limits` where they may be; `moved(name, dragging)` is
 * called after each change, and `describe(name, point)` is what a button is called.
 */
class Handles {
  constructor(frame, picture, points, limits, moved, describe) {
    Object.assign(this, { frame, picture, points, limits, moved, describe });
    this.dragged = null;
    for (const name of Object.keys(points)) this.listen(name, byId(name));
    frame.addEventListener("click", (event) => {
      if (event.target.closest(".handle")) return;
      const at = this.place(event.clientX, event.clientY);
      const away = (name) => Math.hypot(points[name][0] - at[0], points[name][1] - at[1]);
      const nearest = Object.keys(points).reduce((one, other) => (away(other) < away(one) ? other : one));
      this.move(nearest, at, false);
    });
  }

  listen(name, button) {
    let offset = [0, 0];
    button.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      const at = this.place(event.clientX, event.clientY);
      offset = [this.points[name][0] - at[0], this.points[name][1] - at[1]];
      button.setPointerCapture(event.pointerId);
      this.dragged = name;
    });
    button.addEventListener("pointermove", (event) => {
      if (this.dragged !== name || !button.hasPointerCapture(event.pointerId)) return;
      const at = this.place(event.clientX, event.clientY);
      this.move(name, [at[0] + offset[0], at[1] + offset[1]], true);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      button.addEventListener(end, () => {
        if (this.dragged !== name) return;
        this.dragged = null;
        this.moved(name, false);
      });
    }
    button.addEventListener("keydown", (event) => {
      const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!direction || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const [xlow, xhigh, ylow, yhigh] = this.picture.view;
      const step = (event.shiftKey ? 0.05 : 0.01) * Math.max(xhigh - xlow, yhigh - ylow);
      const [x, y] = this.points[name];
      this.move(name, [x + step * direction[0], y + step * direction[1]], false);
    });
  }

  /** The point of the plane at a place of the window. */
  place(left, top) {
    const box = this.frame.getBoundingClientRect(), [xlow, xhigh, ylow, yhigh] = this.picture.view;
    return [
      xlow + ((left - box.left) / box.width) * (xhigh - xlow),
      yhigh - ((top - box.top) / box.height) * (yhigh - ylow),
    ];
  }

  move(name, [x, y], dragging) {
    const [xlow, xhigh, ylow, yhigh] = this.limits;
    this.points[name] = [Math.min(Math.max(x, xlow), xhigh), Math.min(Math.max(y, ylow), yhigh)];
    this.moved(name, dragging);
  }

  /** Put the buttons where their points are. */
  show() {
    const [xlow, xhigh, ylow, yhigh] = this.picture.view;
    for (const [name, [x, y]] of Object.entries(this.points)) {
      const button = byId(name);
      button.style.left = `${(100 * (x - xlow)) / (xhigh - xlow)}%`;
      button.style.top = `${(100 * (yhigh - y)) / (yhigh - ylow)}%`;
      button.setAttribute("aria-label", this.describe(name, [x, y]));
    }
  }
}
