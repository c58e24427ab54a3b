// Learning curves of cells: the mean over seeds at equal epoch, its band, and the trials that ended early.

const MODES = {
  finetune: { name: 'fine-tuning', x: 'fine-tuning epoch', y: (cell) => 'validation ' + (ownOf(cellData().metrics, cell.task) || 'metric') },
  embedder: { name: 'embedder training', x: 'embedder epoch', y: () => 'alignment objective' },
};
const MOST_KEPT = 8;

// Returns a trial's curve as points, or null if it has none.
function curveOf(stage, trialId) {
  const curve = ownOf(curveData()[stage], trialId);
  return curve ? curve.slice(1).map((y, i) => ({ x: curve[0] + i, y })) : null;
}

// Returns the ends of an interval around a mean; within its bounds (null: none), as stats/intervals.py computes them.
function endsOf(y, half, [low, high]) {
  const below = low === null ? Infinity : y - low;
  const above = high === null ? Infinity : high - y;
  if ((low === null && high === null) || half <= 1e-9 * Math.abs(y) || Math.min(below, above) <= 0) {
    return [low === null ? y - half : Math.max(low, y - half), high === null ? y + half : Math.min(high, y + half)];
  }
  if (low === null) return [high - above * Math.exp(half / above), high - above * Math.exp(-half / above)];
  if (high === null) return [low + below * Math.exp(-half / below), low + below * Math.exp(half / below)];
  const shift = half * (1 / below + 1 / above);
  const share = (step) => 1 / (1 + (above / below) * Math.exp(-step));
  return [low + (high - low) * share(-shift), low + (high - low) * share(shift)];
}

function meanAt(values, x, bounds) {
  const n = values.length;
  const y = values.reduce((sum, value) => sum + value, 0) / n;
  if (n < 3) return { x, y, n, low: null, high: null };
  const sd = Math.sqrt(values.reduce((sum, value) => sum + (value - y) ** 2, 0) / (n - 1));
  const half = (cellData().quantiles[n - 2] * sd) / Math.sqrt(n);
  const [low, high] = endsOf(y, half, bounds);
  return { x, y, n, low, high };
}

function meansOf(curves, bounds) {
  const at = new Map();
  for (const point of curves.flat()) {
    if (point.y !== null) push(at, point.x, point.y);
  }
  return [...at.keys()].sort((a, b) => a - b).map((x) => meanAt(at.get(x), x, bounds));
}

// Returns "n = 5 seeds", or the epochs of each n if it changes.
function countsOf(means) {
  const parts = [];
  for (const { x, n } of means) {
    if (!parts.length || parts.at(-1).n !== n) parts.push({ n, from: x, to: x });
    parts.at(-1).to = x;
  }
  if (parts.length === 1) return `n = ${parts[0].n} seed${parts[0].n === 1 ? '' : 's'}`;
  const words = parts.slice(0, 4).map(({ n, from, to }) => `n = ${n} in epochs ${from} to ${to}`);
  return words.join(', ') + (parts.length > 4 ? ', and so on' : '');
}

// Returns the curve of a trial that is not ok; it is cut if the trial ended in this stage.
function earlyOf({ row, status, points }, stage) {
  const isCut = stage === 'finetune' || !curveOf('finetune', trials().value('trial_id', row));
  return { points, isCut, text: isCut ? `${status} after epoch ${points.at(-1).x}` : `${status} in fine-tuning` };
}

function seriesOf(cell, stage, colour) {
  const { cells, value } = trials();
  const rows = (cells.get(cell.id) || []).filter((row) => value('role', row) !== 'search');
  const all = rows.map((row) => ({ row, status: value('status', row), points: curveOf(stage, value('trial_id', row)) }));
  const drawn = all.filter((trial) => trial.points);
  const ok = drawn.filter((trial) => trial.status === 'ok').map((trial) => trial.points);
  const early = drawn.filter((trial) => trial.status !== 'ok').map((trial) => earlyOf(trial, stage));
  const mean = meansOf(ok, (stage === 'finetune' && ownOf(cellData().bounds, cell.task)) || [null, null]);
  const isFew = mean.every((point) => point.n < 3);
  return {
    name: cell.name + (cellData().bases.includes(cell.id) ? ' (base)' : ''),
    colour,
    mean,
    thin: isFew ? ok : [],
    early,
    about: aboutSeries(mean, isFew, early, all.length - drawn.length),
  };
}

function aboutSeries(mean, isFew, early, nWithout) {
  const parts = [];
  if (mean.length) parts.push(`mean of ${countsOf(mean)}${isFew ? ', too few for a band: thin lines are the seeds' : ''}`);
  if (early.length) {
    const ends = early.slice(0, 5).map((trial) => trial.text).join(', ') + (early.length > 5 ? ' and others' : '');
    parts.push(`${early.length} not ok, dotted and in no mean: ${ends}`);
  }
  if (nWithout) parts.push(`${nWithout} without this curve`);
  return parts.join('; ') + '.';
}

// The panel ----------------------------------------------------------------------------------------

const panel = { mode: 'finetune', kept: [], looked: null };

function cellsShown() {
  const { cells, bases } = cellData();
  const ids = [...panel.kept];
  if (panel.looked && !ids.includes(panel.looked)) ids.push(panel.looked);
  const chosen = ids.map((id) => cells.find((cell) => cell.id === id));
  // A single cell says little, so its base is drawn with it.
  if (chosen.length === 1) {
    const base = cells.find((cell) => bases.includes(cell.id) && cell.task === chosen[0].task && cell !== chosen[0]);
    if (base) chosen.push(base);
  }
  // Tasks have different metrics: the cell looked at last decides which task is drawn.
  const { task } = chosen.at(panel.looked ? -1 : 0) || {};
  const leading = panel.looked ? cells.find((cell) => cell.id === panel.looked).task : task;
  return chosen.filter((cell) => cell.task === leading);
}

function drawPanel() {
  const shown = cellsShown();
  const holder = byId('chart');
  if (!shown.length) {
    holder.replaceChildren();
    return;
  }
  const mode = MODES[panel.mode];
  const series = shown.map((cell, i) => seriesOf(cell, panel.mode, i % DASHES.length));
  const about = `${mode.name}, ${shown[0].task}: ` + series.map((line) => `${line.name}: ${line.about}`).join(' ');
  drawChart(holder, { series, xLabel: mode.x, yLabel: mode.y(shown[0]), about }, `No trial of these cells has a curve of ${mode.name}.`);
  holder.prepend(el('p', { class: 'faint' }, `${shown[0].task}, ${mode.name}`));
  const bounded = panel.mode === 'finetune' && ownOf(cellData().bounds, shown[0].task);
  holder.append(el('p', { class: 'note' },
    `Band: ${cellData().percent} Student-t interval of the mean over seeds at equal epoch, for three or more seeds${bounded ? ', within the bounds of the metric' : ''}. Trials that are not ok are in no mean.`));
}

function look(id) {
  if (panel.looked === id) return;
  panel.looked = id;
  drawPanel();
}

function keep(row, button) {
  const id = row.dataset.cell;
  const isKept = !panel.kept.includes(id);
  panel.kept = isKept ? [...panel.kept, id].slice(-MOST_KEPT) : panel.kept.filter((other) => other !== id);
  panel.looked = isKept || panel.kept.length ? id : null;
  for (const other of document.querySelectorAll('.cells tr[data-cell]')) {
    const on = panel.kept.includes(other.dataset.cell);
    other.classList.toggle('kept', on);
    other.querySelector('.pin').setAttribute('aria-pressed', on);
  }
  drawPanel();
}

function modeButtons() {
  const holder = document.querySelector('.modes');
  const modes = Object.keys(MODES).filter((mode) => byId('data-curves').textContent.includes(`"${mode}":{"`));
  if (modes.length === 1) [panel.mode] = modes;
  if (modes.length < 2) return;
  holder.hidden = false;
  for (const mode of modes) {
    const button = el('button', { type: 'button', class: 'quiet', 'aria-pressed': String(mode === panel.mode) }, MODES[mode].name);
    button.addEventListener('click', () => {
      panel.mode = mode;
      for (const other of holder.children) other.setAttribute('aria-pressed', String(other === button));
      drawPanel();
    });
    holder.append(button);
  }
}

for (const body of document.querySelectorAll('.cells tbody')) {
  const rowOf = (event) => event.target.closest('tr[data-cell]');
  body.addEventListener('mouseover', (event) => rowOf(event) && look(rowOf(event).dataset.cell));
  body.addEventListener('focusin', (event) => rowOf(event) && look(rowOf(event).dataset.cell));
  body.addEventListener('click', (event) => rowOf(event) && keep(rowOf(event)));
}
modeButtons();
window.addEventListener('resize', () => byId('chart').firstChild && drawPanel());
