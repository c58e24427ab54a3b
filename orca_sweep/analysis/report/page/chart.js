// A chart of curves: means with bands, single trials as thin lines, and trials that are not ok as dotted lines with a
// cross where they ended.

const DASHES = ['', '7 3', '2 3', '9 3 2 3', '12 4', '4 2', '1 3', '6 2 1 2'];
const MARGIN = { left: 56, right: 16, top: 30, bottom: 44 };

function niceTicks(low, high, most) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const x of [1, 2, 5]) {
      const tick = x * 10 ** power;
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  }
  return ticks.length > 7 ? ticks.filter((x) => Number.isInteger(Math.log10(x) + 1e-12) || /^1/.test(x.toExponential())) : ticks;
}

const shortNumber = (x) => String(Number(x.toPrecision(4))).replace('-', '\u2212');

function extent(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

function scaleOf([low, high], from, to, isLog) {
  const turn = isLog ? Math.log : (x) => x;
  const [a, b] = [turn(low), turn(high)];
  const span = b - a || 1;
  return (x) => from + ((turn(x) - a) / span) * (to - from);
}

// Returns the path of a line, with gaps where values are missing.
function pathOf(points, x, y) {
  let path = '';
  let pen = 'M';
  for (const point of points) {
    if (point.y === null) {
      pen = 'M';
    } else {
      path += `${pen}${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`;
      pen = 'L';
    }
  }
  return path;
}

function bandsOf(points, x, y) {
  const parts = [];
  let part = [];
  for (const point of [...points, { low: null }]) {
    if (point.low === null) {
      if (part.length > 1) parts.push(part);
      part = [];
    } else part.push(point);
  }
  return parts.map((points) => {
    const edge = (name) => points.map((p) => `${x(p.x).toFixed(1)} ${y(p[name]).toFixed(1)}`);
    return `M${edge('high').join('L')}L${edge('low').reverse().join('L')}Z`;
  });
}

function rangeOf(series) {
  const xs = [];
  const ys = [];
  for (const { mean, thin, early } of series) {
    for (const point of mean) {
      if (point.y === null) continue;
      xs.push(point.x);
      ys.push(point.y);
      if (point.low !== null) ys.push(point.low, point.high);
    }
    for (const point of [...thin, ...early.map((run) => run.points)].flat()) {
      if (point.y !== null) { xs.push(point.x); ys.push(point.y); }
    }
  }
  return [extent(xs), extent(ys), ys];
}

function lineOf(line, x, y) {
  const look = 'c' + line.colour;
  const dash = DASHES[line.colour];
  const made = bandsOf(line.mean, x, y).map((d) => svg('path', { d, class: 'band ' + look }));
  made.push(...line.thin.map((points) => svg('path', { d: pathOf(points, x, y), class: 'thin ' + look, fill: 'none' })));
  for (const { points, isCut } of line.early) {
    made.push(svg('path', { d: pathOf(points, x, y), class: 'early ' + look }));
    const last = points.findLast((point) => point.y !== null);
    if (last && isCut) made.push(svg('path', { d: cross(x(last.x), y(last.y)), class: 'end ' + look }));
  }
  made.push(svg('path', { d: pathOf(line.mean, x, y), class: 'mean ' + look, 'stroke-dasharray': dash || null }));
  const only = line.mean.filter((point) => point.y !== null);
  if (only.length === 1) made.push(svg('circle', { cx: x(only[0].x), cy: y(only[0].y), r: 3, class: look }));
  return made;
}

const cross = (x, y) => `M${x - 4} ${y - 4}L${x + 4} ${y + 4}M${x - 4} ${y + 4}L${x + 4} ${y - 4}`;

// Returns an SVG as wide as its holder, or null if no series has a point.
function chartOf({ series, xLabel, yLabel, about }, width) {
  const [xRange, yRange, ys] = rangeOf(series);
  if (!ys.length) return null;
  const height = Math.max(220, Math.min(340, width * 0.6));
  const isLog = yRange[0] > 0 && yRange[1] > 20 * yRange[0];
  const pad = isLog ? 0 : (yRange[1] - yRange[0]) * 0.04 || Math.abs(yRange[0]) * 0.1 || 1;
  const shownY = isLog ? yRange : [yRange[0] - pad, yRange[1] + pad];
  const shownX = xRange[0] === xRange[1] ? [xRange[0] - 1, xRange[1] + 1] : xRange;
  const right = width - MARGIN.right;
  const bottom = height - MARGIN.bottom;
  const x = scaleOf(shownX, MARGIN.left, right, false);
  const y = scaleOf(shownY, bottom, MARGIN.top, isLog);
  const xTicks = niceTicks(...shownX, Math.max(3, Math.round(width / 90))).filter(Number.isInteger);
  const yTicks = isLog ? logTicks(...shownY) : niceTicks(...shownY, 6);
  const made = svg('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': about });
  for (const tick of yTicks) {
    made.append(svg('line', { x1: MARGIN.left, x2: right, y1: y(tick), y2: y(tick), class: 'grid' }));
    made.append(svg('text', { x: MARGIN.left - 6, y: y(tick) + 4, 'text-anchor': 'end' }, shortNumber(tick)));
  }
  for (const tick of xTicks) {
    made.append(svg('text', { x: x(tick), y: bottom + 17, 'text-anchor': 'middle' }, shortNumber(tick)));
  }
  made.append(svg('path', { d: `M${MARGIN.left} ${MARGIN.top}V${bottom}H${right}`, class: 'axis' }));
  made.append(svg('text', { x: (MARGIN.left + right) / 2, y: height - 8, 'text-anchor': 'middle' }, xLabel));
  made.append(svg('text', { x: 4, y: 14 }, yLabel + (isLog ? ', log axis' : '')));
  for (const line of series) made.append(...lineOf(line, x, y));
  return made;
}

function keyOf(line) {
  const swatch = svg('svg', { viewBox: '0 0 35 10', 'aria-hidden': 'true' },
    svg('line', { x1: 1, x2: 34, y1: 5, y2: 5, class: 'mean c' + line.colour, 'stroke-dasharray': DASHES[line.colour] || null }));
  return el('li', {}, swatch, el('span', {}, el('strong', {}, line.name), ': ', line.about));
}

// Draws a chart into a holder, with a key of its lines below.
function drawChart(holder, chart, nothing) {
  const made = chartOf(chart, Math.round(holder.clientWidth) || 560);
  holder.replaceChildren();
  holder.classList.add('chart');
  if (!made) {
    holder.append(el('p', {}, nothing));
    return;
  }
  holder.append(made, el('ul', { class: 'keys' }, chart.series.map(keyOf)));
}
