// The two charts of one sensor: a line, a band from lowest to highest where readings are combined, and hatching
// over gaps.

import { axisTimes, number, t, time, value as plain } from "./text.js";

/** Two readings that are further apart than this many usual intervals have a gap between them. */
const GAP_INTERVALS = 2.5;
/** And at least this many steps, where readings are combined. */
const GAP_STEPS = 1.5;
/** The usual interval while it is not known. */
const GAP_UNKNOWN_MS = 60_000;
/** Steps of the value axis: no finer than its labels, which have one decimal. */
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000];
const HEIGHT = { wide: 230, narrow: 180 };
/** Width of the value axis: at least, and of each character of a label beside the space between, px. */
const AXIS_PX = { least: 52, character: 7, space: 14 };

const dark = matchMedia("(prefers-color-scheme: dark)");
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Adds a null between two points with a gap between them; returns the columns and the gaps, in s. */
export function withGaps(series, interval) {
  const { at, from, to, step_ms: step } = series;
  // A sensor that was read less often in former times had no gap between each two readings then.
  const between = at.slice(1).map((point, index) => point - at[index]).sort((one, other) => one - other);
  const usual = Math.max(interval ?? GAP_UNKNOWN_MS, between[Math.floor(between.length / 2)] ?? 0);
  const far = Math.max(usual * GAP_INTERVALS, (step ?? 0) * GAP_STEPS);
  const quantities = ["temperature", "humidity", "value"].filter((quantity) => series[quantity]);
  const columns = { x: [] };
  for (const quantity of quantities) columns[quantity] = { min: [], mean: [], max: [] };
  const gaps = [];
  const add = (x, index) => {
    columns.x.push(x / 1000);
    for (const quantity of quantities) {
      for (const which of ["min", "mean", "max"]) {
        columns[quantity][which].push(index === null ? null : series[quantity][which][index]);
      }
    }
  };
  at.forEach((point, index) => {
    const end = index === 0 ? null : at[index - 1] + (step ?? 0);
    if (index > 0 && point - at[index - 1] > far) {
      gaps.push([end / 1000, point / 1000]);
      add((end + point) / 2, null);
    }
    add(point, index);
  });
  const last = at.length ? at[at.length - 1] + (step ?? 0) : from;
  if (at.length && to - last > far) gaps.push([last / 1000, to / 1000]);
  return { columns, gaps };
}

/** One chart; without a unit, of numbers of any size. */
export class Chart {
  constructor(element, colour, unit, onZoom) {
    Object.assign(this, { element, colour, unit, onZoom, plot: null, gaps: [], shown: null });
    new ResizeObserver(() => this.fit()).observe(element);
    dark.addEventListener("change", () => this.redraw());
  }

  size() {
    const width = Math.floor(this.element.clientWidth);
    return { width, height: width < 600 ? HEIGHT.narrow : HEIGHT.wide };
  }

  fit() {
    if (this.element.clientWidth === 0) return;
    // Data that arrived while the chart was hidden, and so had no width.
    if (!this.plot) this.redraw();
    else if (this.element.clientWidth !== this.plot.width) this.plot.setSize(this.size());
  }

  redraw() {
    if (!this.shown) return;
    this.plot?.destroy();
    this.plot = null;
    this.show(...this.shown);
  }

  /** Shows one quantity; `x`, `gaps`, `from` and `to` are in s, `limits` in the quantity's unit. */
  show(x, { min, mean, max }, gaps, from, to, limits) {
    this.shown = [x, { min, mean, max }, gaps, from, to, limits];
    this.gaps = gaps;
    this.limits = limits;
    this.range = [from, to];
    const data = [x, max, min, mean];
    if (this.plot) {
      this.plot.setData(data, false);
      this.plot.setScale("x", { min: from, max: to });
    } else if (this.element.clientWidth > 0) {
      this.plot = new uPlot(this.options(), data, this.element);
    }
  }

  options() {
    const ink = style("--quiet"), grid = style("--line"), colour = style(this.colour);
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: ink, font, grid: { stroke: grid, width: 1 }, ticks: { show: false } };
    const format = this.unit ? number : plain;
    const value = (_, shown) => (shown == null ? "–" : `${format(shown)} ${this.unit}`);
    const least = this.unit ? 0.5 : 0;
    return {
      ...this.size(),
      padding: [10, 18, 0, 0],
      cursor: { sync: { key: "humidor" }, drag: { x: true, y: false, setScale: false }, points: { size: 7 } },
      legend: { live: true, isolate: false, markers: { show: false } },
      scales: {
        x: { time: true, range: () => this.range },
        // At least 1 °C or 1 %: a flat line stays flat.
        y: { range: (_, low, high) => {
          const margin = Math.max((high - low) * 0.08, least) || Math.abs(high) * 0.1 || 1;
          return low == null ? [0, 1] : [low - margin, high + margin];
        } },
      },
      axes: [
        { ...axis, size: 36, space: 76, values: (_, marks, __, ___, step) => axisTimes(marks, step) },
        {
          ...axis, space: 38, ...(this.unit && { incrs: STEPS }),
          size: (_, labels) => Math.max(AXIS_PX.least, ...(labels ?? []).map((label) => label.length * AXIS_PX.character + AXIS_PX.space)),
          // A multiple of a step has digits behind its own that say nothing.
          values: (_, marks) => marks.map((mark) => format(Number(mark.toPrecision(12)))),
        },
      ],
      series: [
        { label: t.time, value: (_, shown) => (shown == null ? "–" : time(shown * 1000)) },
        { label: "↑", stroke: "transparent", width: 0, points: { show: false }, value },
        { label: "↓", stroke: "transparent", width: 0, points: { show: false }, value },
        { label: "⌀", stroke: colour, width: 1.75, points: { show: (plot, _, first, last) => last - first < 60, size: 4, fill: colour }, value },
      ],
      bands: [{ series: [1, 2], fill: style(`${this.colour}-band`) }],
      hooks: {
        drawClear: [(plot) => this.hatch(plot)],
        draw: [(plot) => this.drawLimits(plot)],
        setSelect: [(plot) => {
          if (plot.select.width > 8) this.onZoom(plot.posToVal(plot.select.left, "x") * 1000, plot.posToVal(plot.select.left + plot.select.width, "x") * 1000);
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        }],
      },
    };
  }

  /** Dashed lines at the limits of alarms. */
  drawLimits(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = style("--bad");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const limit of this.limits) {
      const y = Math.round(plot.valToPos(limit, "y", true)) + 0.5;
      if (y < bbox.top || y > bbox.top + bbox.height) continue;
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    }
    ctx.restore();
  }

  hatch(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = style("--hatch");
    ctx.lineWidth = devicePixelRatio;
    for (const [start, end] of this.gaps) {
      const left = Math.max(plot.valToPos(start, "x", true), bbox.left);
      const right = Math.min(plot.valToPos(end, "x", true), bbox.left + bbox.width);
      if (right - left < 1) continue;
      ctx.save();
      ctx.beginPath();
      ctx.rect(left, bbox.top, right - left, bbox.height);
      ctx.clip();
      ctx.beginPath();
      const pitch = 7 * devicePixelRatio;
      for (let x = left - bbox.height; x < right; x += pitch) {
        ctx.moveTo(x, bbox.top + bbox.height);
        ctx.lineTo(x + bbox.height, bbox.top);
      }
      ctx.stroke();
      ctx.restore();
    }
    ctx.restore();
  }
}
