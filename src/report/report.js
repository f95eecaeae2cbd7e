// What the page does beyond being read: switches, sorting, values under the pointer and the arrow keys, colours, print.
// Without it everything is still there to read. It loads nothing and keeps nothing but the chosen colours.
"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const live = make("div", { class: "unseen", "aria-live": "polite" });
  document.body.append(live);
  document.body.classList.add("live-page");

  // Colours: as the system wishes, until the reader chooses.
  const controls = make("div", { class: "controls" });
  document.querySelector(".bar").append(controls);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const theme = make("button", { type: "button", class: "control", id: "theme" });
  const name = () => { theme.textContent = isDark() ? "Light colours" : "Dark colours"; };
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("pyalloc-bench-theme", root.dataset.theme); } catch { /* then only for now */ }
    name();
  });
  dark.addEventListener("change", name);
  name();

  // Allocators: one switch each, for every chart and table.
  const hidden = new Set();
  const everything = make("button", { type: "button", class: "control", id: "show-all", hidden: "" }, "Show all");
  controls.append(everything, theme);
  const labels = new Map();
  const show = (slot, shown) => {
    if (shown) hidden.delete(slot); else hidden.add(slot);
    for (const element of all(`[data-series="${slot}"]`)) {
      if (!element.closest(".legend")) element.classList.toggle("off", !shown);
    }
    all(`.legend [data-series="${slot}"] button`).forEach((chip) => chip.setAttribute("aria-pressed", String(shown)));
    everything.hidden = hidden.size === 0;
    live.textContent = `${labels.get(slot) || "allocator"} ${shown ? "shown" : "hidden"}`;
    charts.forEach((chart) => chart.clear());
  };
  const flip = (slot) => show(slot, hidden.has(slot));
  for (const chip of all(".legend .chip")) {
    const slot = chip.parentElement.dataset.series;
    labels.set(slot, chip.textContent.trim());
    const title = `${labels.get(slot)}: hide or show in every chart and table`;
    const button = make("button", { type: "button", class: "chip", "aria-pressed": "true", title }, ...chip.childNodes);
    button.addEventListener("click", () => flip(slot));
    chip.replaceWith(button);
  }
  everything.addEventListener("click", () => [...hidden].forEach((slot) => show(slot, true)));

  // Tables: a click sorts upwards, the next downwards, the third restores. Rows stay within their group.
  const UNITS = { ns: 1, us: 1e3, "µs": 1e3, ms: 1e6, s: 1e9, k: 1e3, M: 1e6, G: 1e9, B: 1, KiB: 1024, MiB: 1 << 20, GiB: 1 << 30 };
  const number = (text) => {
    const found = /^[<(]?\s*([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)\s*([A-Za-zµ]+)?/.exec(text);
    return found ? Number(found[1]) * (UNITS[found[2]] || 1) : NaN;
  };
  const cell = (row, column) => row.cells[column] ? row.cells[column].textContent.trim() : "–";
  const compare = (column) => (one, other) => {
    const [a, b] = [cell(one, column), cell(other, column)];
    if (a === "–" || b === "–") return (a === "–") - (b === "–");
    const [x, y] = [number(a), number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  };
  const sort = (table, heading, column) => {
    const before = heading.getAttribute("aria-sort");
    const order = before === "ascending" ? "descending" : before === "descending" ? null : "ascending";
    all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
    if (order) heading.setAttribute("aria-sort", order);
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
      rows.forEach((row, index) => { row.dataset.place = row.dataset.place || String(index); });
      const sorted = rows.toSorted(order ? compare(column) : (a, b) => a.dataset.place - b.dataset.place);
      const unknown = order === "descending" ? sorted.filter((row) => cell(row, column) === "–") : [];
      if (order === "descending") sorted.reverse();
      body.append(...sorted.filter((row) => !unknown.includes(row)), ...unknown);
    }
    live.textContent = order ? `sorted by ${heading.textContent.trim()}, ${order}` : "in the first order";
  };
  for (const table of all("table")) {
    const rows = Math.max(...[...table.tBodies].map((body) => body.rows.length));
    if (rows < 2 || !table.querySelector(".n, .v")) continue;
    all("thead th", table).forEach((heading, column) => {
      const button = make("button", { type: "button" }, ...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => sort(table, heading, column));
    });
  }

  // Numbers as they are read.
  const digits = (value, count) => {
    if (value === 0) return "0";
    const decimals = count - 1 - Math.floor(Math.log10(Math.abs(value)));
    return value.toFixed(Math.min(Math.max(decimals, 0), 8));
  };
  const WRITE = {
    MiB: (v) => `${v.toFixed(2)} MiB`,
    KiB: (v) => `${v.toFixed(1)} KiB`,
    GiB: (v) => `${v.toFixed(3)} GiB`,
    "%": (v) => `${v >= 1 ? v.toFixed(1) : digits(v, 3)} %`,
    s: (v) => `${digits(v, 3)} s`,
    ns: (v) => v < 1e3 ? `${digits(v, 3)} ns` : v < 1e6 ? `${digits(v / 1e3, 3)} µs` : v < 1e9 ? `${digits(v / 1e6, 3)} ms` : `${digits(v / 1e9, 3)} s`,
  };
  const write = (value, unit) => (WRITE[unit] || ((v) => digits(v, 4)))(value);
  const named = (axis, value) => {
    const found = axis.names.find(([at]) => Math.abs(at - value) < 1e-6);
    return found && found[1];
  };

  // Charts.
  const share = (axis, value) => {
    const part = axis.log ? Math.log(value / axis.low) / Math.log(axis.high / axis.low) : (value - axis.low) / (axis.high - axis.low);
    return Math.min(Math.max(part, 0), 1);
  };
  const atX = (panel, x) => panel.plot[0] + share(panel.x, x) * (panel.plot[2] - panel.plot[0]);
  const atY = (panel, y) => {
    const part = share(panel.y, y) * (panel.plot[3] - panel.plot[1]);
    return panel.y.down ? panel.plot[1] + part : panel.plot[3] - part;
  };
  const distinct = (values) => [...new Set(values)].sort((a, b) => a - b);
  const nearest = (values, wanted, place) => {
    let best = 0;
    values.forEach((value, index) => {
      if (Math.abs(place(value) - wanted) < Math.abs(place(values[best]) - wanted)) best = index;
    });
    return best;
  };
  const shown = (series) => series.slot === undefined || !hidden.has(String(series.slot));
  const owner = (panel, y) => panel.owned.find(([from, to]) => y >= from && y < to);

  /// What a panel says at each of its stops. Kinds differ in what a stop is: an x, a row, a cell.
  const KINDS = {
    lines: {
      stops: (panel) => distinct(panel.series.filter(shown).flatMap((series) => series.pieces.flat().map(([x]) => x))),
      find: (panel, stops, x) => nearest(stops, x, (stop) => atX(panel, stop)),
      read: (panel, x) => {
        const rows = [];
        for (const series of panel.series.filter(shown)) {
          const points = series.pieces.flat();
          let point;
          if (series.mark === "step") {
            // A share holds from its time on; beyond the last one nothing is known.
            if (points.length && x <= points[points.length - 1][0]) point = points.filter(([at]) => at <= x).pop();
          } else {
            const near = points.length ? points[nearest(points.map(([at]) => at), atX(panel, x), (at) => atX(panel, at))] : undefined;
            if (near && Math.abs(atX(panel, near[0]) - atX(panel, x)) < 60) point = near;
          }
          if (point) rows.push({ series, value: point[1], text: write(point[1], panel.y.unit), at: [atX(panel, series.mark === "step" ? x : point[0]), atY(panel, point[1])] });
        }
        rows.sort((a, b) => b.value - a.value);
        const where = named(panel.x, x);
        const head = where || `${panel.x.what.replace(": ", ", ")}: ${write(x, panel.x.unit)}`;
        const of = panel.y.what.includes("same scale") ? panel.y.what.split(",")[0] : panel.y.what.replace(": ", ", ");
        return { head, of, rows, x: atX(panel, x), cursor: "line" };
      },
    },
    rows: {
      stops: (panel) => distinct(panel.series.filter((series) => series.mark !== "none").flatMap((series) => series.pieces.flat().map(([, y]) => y)))
        .filter((y) => { const own = owner(panel, y); return !own || !hidden.has(String(own[2])); }),
      find: (panel, stops, x, y) => nearest(stops, y, (stop) => atY(panel, stop)),
      read: (panel, y) => {
        const rows = [];
        for (const series of panel.series.filter((series) => series.mark !== "none")) {
          const values = series.pieces.flat().map((point, index) => [point, series.spans && series.spans[index]]).filter(([point]) => point[1] === y);
          if (!values.length) continue;
          const said = values.map(([[x], span]) => {
            if (series.mark === "bar") return write(span[1] - span[0], panel.x.unit);
            return write(x, panel.x.unit) + (span ? ` [${digits(span[0], 4)}, ${digits(span[1], 4)}]` : "");
          });
          rows.push({ series, text: said.join(" and ") });
        }
        const own = owner(panel, y);
        const row = named(panel.y, y);
        const head = [own && own[3], row !== (own && own[3]) && row].filter(Boolean).join(", ");
        return { head: `${head}: ${panel.x.what}`, rows, x: Math.max(...rows.map((r) => atX(panel, r.series.pieces.flat().find((p) => p[1] === y)[0]))), y, own, cursor: "row" };
      },
    },
    cells: {
      stops: (panel) => panel.series.flatMap((series) => series.pieces.map((corners) => ({ series, corners })))
        .sort((a, b) => a.corners[0][1] - b.corners[0][1] || a.corners[0][0] - b.corners[0][0]),
      find: (panel, stops, x, y) => stops.findIndex(({ corners: [[left, foot], [right, top]] }) =>
        x >= atX(panel, left) && x < atX(panel, right) && y <= atY(panel, foot) && y > atY(panel, top)),
      read: (panel, { series, corners: [[left, foot], [right, top]] }) => {
        const [first, last] = [Math.round(foot + 0.5), Math.round(top - 0.5)];
        const arena = first === last ? `arena ${first}` : `arenas ${first} to ${last}`;
        const name = panel.x.names.find(([at]) => at >= left && at <= right);
        const when = name ? name[1] : `${panel.x.what}: ${write(left, panel.x.unit)} to ${write(right, panel.x.unit)}`;
        return { head: `${arena}, ${when}`, rows: [{ series, text: "" }], x: atX(panel, right), box: [left, foot, right, top], cursor: "cell" };
      },
    },
  };
  const kind = (panel) => KINDS[panel.y.down ? "rows" : panel.series.some((series) => series.mark === "cells") ? "cells" : "lines"];

  /// One chart: what the pointer or the keys are at, and the box that says it.
  class Chart {
    constructor(figure) {
      this.panels = JSON.parse(figure.querySelector("script").textContent);
      this.canvas = figure.querySelector(".canvas");
      this.svg = this.canvas.querySelector("svg");
      this.box = make("div", { class: "reading", hidden: "" });
      this.canvas.append(this.box);
      this.marks = [];
      this.at = null;
      const title = figure.querySelector("h4").textContent;
      for (const [key, value] of Object.entries({ tabindex: "0", role: "application", "aria-roledescription": "chart",
        "aria-label": `${title}. Arrow keys read its values, Page Up and Page Down go further, Escape leaves.` })) this.canvas.setAttribute(key, value);
      this.svg.addEventListener("pointermove", (event) => this.point(event));
      this.svg.addEventListener("pointerdown", (event) => this.point(event));
      this.svg.addEventListener("pointerleave", () => this.clear());
      this.svg.addEventListener("click", (event) => {
        const text = event.target.closest("text[data-series]");
        if (text) flip(text.dataset.series);
      });
      this.canvas.addEventListener("keydown", (event) => this.key(event));
      this.canvas.addEventListener("blur", () => this.clear());
    }

    point(event) {
      const [frame, view] = [this.svg.getBoundingClientRect(), this.svg.viewBox.baseVal];
      const x = view.x + (event.clientX - frame.left) * view.width / frame.width;
      const y = view.y + (event.clientY - frame.top) * view.height / frame.height;
      // Rows may be pointed at by their names and columns too.
      const panel = this.panels.find(({ plot, y: axis }) => y >= plot[1] - 40 && y <= plot[3] + 40 && (axis.down && this.panels.length === 1 || x >= plot[0] - 40 && x <= plot[2] + 40));
      if (!panel) return this.clear();
      const stops = kind(panel).stops(panel);
      const index = stops.length ? kind(panel).find(panel, stops, kind(panel) === KINDS.lines ? Math.min(Math.max(x, panel.plot[0]), panel.plot[2]) : x, y) : -1;
      if (index < 0) return this.clear();
      this.show(panel, stops, index);
    }

    key(event) {
      const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1, PageDown: 20, PageUp: -20, Home: -Infinity, End: Infinity };
      if (event.key === "Escape") return this.clear();
      if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      let panel = this.at ? this.at.panel : this.panels[0];
      let stops = kind(panel).stops(panel);
      let index = this.at ? Math.min(Math.max(this.at.index + steps[event.key], 0), stops.length - 1) : 0;
      const past = this.at && Math.abs(steps[event.key]) === 1 && index === this.at.index;
      const other = this.panels[this.panels.indexOf(panel) + Math.sign(steps[event.key])];
      if ((past || !stops.length) && other) {
        [panel, stops] = [other, kind(other).stops(other)];
        index = steps[event.key] > 0 ? 0 : stops.length - 1;
      }
      if (!stops.length) return;
      const { head, of, rows } = this.show(panel, stops, index);
      live.textContent = `${head}${of ? `, ${of}` : ""}. ${rows.map((row) => `${row.series.name} ${row.text}`).join("; ")}`;
    }

    draw(name, attributes) {
      const element = document.createElementNS(this.svg.namespaceURI, name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      this.svg.append(element);
      this.marks.push(element);
    }

    show(panel, stops, index) {
      this.clear();
      const reading = kind(panel).read(panel, stops[index]);
      this.at = { panel, index };
      const [left, top, right, bottom] = panel.plot;
      let y = top;
      if (reading.cursor === "line") {
        this.draw("path", { class: "cursor", d: `M${reading.x} ${top}V${bottom}` });
        for (const { series, at } of reading.rows) this.draw("circle", { class: `point ${series.ink}`, ...own(series), cx: at[0], cy: at[1], r: 45 });
      } else if (reading.cursor === "row") {
        const half = Math.min(...panel.owned.map(([from, to]) => (to - from) / 2), 0.48);
        const [from, to] = [atY(panel, reading.y - half), atY(panel, reading.y + half)];
        y = to;
        this.draw("path", { class: "row-cursor", d: `M${left} ${from}H${right}V${to}H${left}z` });
      } else {
        const [x0, y0, x1, y1] = [atX(panel, reading.box[0]), atY(panel, reading.box[1]), atX(panel, reading.box[2]), atY(panel, reading.box[3])];
        y = y0;
        this.draw("path", { class: "cell-cursor", d: `M${x0} ${y0}H${x1}V${y1}H${x0}z` });
      }
      this.say(reading, y);
      return reading;
    }

    say(reading, y) {
      this.box.replaceChildren(make("strong", {}, reading.head));
      if (reading.of) this.box.append(make("em", {}, reading.of));
      for (const { series, text } of reading.rows) {
        this.box.append(make("div", {}, make("i", { class: series.ink, ...own(series) }), make("span", {}, series.name), make("b", {}, text)));
      }
      this.box.hidden = false;
      const view = this.svg.viewBox.baseVal;
      const scale = this.svg.getBoundingClientRect().width / view.width;
      const [x, room] = [(reading.x - view.x) * scale, this.canvas.clientWidth];
      const [wide, high] = [this.box.offsetWidth, this.box.offsetHeight];
      const beside = x + 14 + wide <= room ? x + 14 : x - 14 - wide;
      const below = (y - view.y) * scale + 6;
      this.box.style.left = `${Math.min(Math.max(beside, 0), Math.max(room - wide, 0))}px`;
      this.box.style.top = `${Math.max(Math.min(below, this.canvas.clientHeight - high), 0)}px`;
    }

    clear() {
      this.marks.forEach((mark) => mark.remove());
      this.marks = [];
      this.at = null;
      this.box.hidden = true;
    }
  }
  const own = (series) => series.slot === undefined ? {} : { "data-series": series.slot };
  const charts = all("figure").filter((figure) => figure.querySelector("script")).map((figure) => new Chart(figure));

  // Contents: which section is being read.
  const links = new Map(all("nav a").map((link) => [link.getAttribute("href").slice(1), link]));
  const sections = all("main > section").filter((section) => links.has(section.id));
  const mark = () => {
    const read = sections.findLast((section) => section.getBoundingClientRect().top < innerHeight / 3) || sections[0];
    links.forEach((link, id) => read && id === read.id ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"));
  };
  addEventListener("scroll", mark, { passive: true });
  mark();

  // Paper has no folds.
  let opened = [];
  const print = (printing) => {
    if (!printing) { opened.forEach((fold) => { fold.open = false; }); opened = []; return; }
    charts.forEach((chart) => chart.clear());
    const closed = all("details:not([open])");
    closed.forEach((fold) => { fold.open = true; });
    opened = opened.concat(closed);
  };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  matchMedia("print").addEventListener("change", (event) => print(event.matches));
})();
