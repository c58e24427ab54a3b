// A page per trial, at #trial/<id>: made when it is opened, left with the back button of the browser.

const ROUTE = /^#trial\/(.+)$/;
const HASHES = /(_sha256|^trial_id|^cell_id)$/;
const report = byId('report');
const trialPage = byId('trial');
let left = null; // position and focus of the reader in the report

function shownValue(value) {
  return typeof value === 'number' ? shortNumber6(value) : String(value);
}

const shortNumber6 = (x) => (Number.isInteger(x) ? String(x) : String(Number(x.toPrecision(6)))).replace('-', '\u2212');

function tableOf(caption, columns, row) {
  const { value } = trials();
  const lines = columns.filter((column) => ![null, ''].includes(value(column.name, row)));
  if (!lines.length) return null;
  return el('div', {}, el('h3', {}, caption), el('div', { class: 'scroll' }, el('table', {}, el('tbody', {}, lines.map((column) =>
    el('tr', { class: column.factor ? 'factor' : null, title: column.meaning || null },
      el('th', { scope: 'row' }, column.name + (column.factor ? ' (factor)' : '')),
      el('td', {}, HASHES.test(column.name) ? el('code', {}, value(column.name, row)) : shownValue(value(column.name, row))
        + (column.unit && !['metric', 'UTC'].includes(column.unit) ? ' ' + column.unit : ''))))))));
}

// Returns the columns by group, those that readers want first at the front.
function groupsOf(row) {
  const columns = [...trials().columns.values()];
  const measures = columns.filter((column) => column.kind === 'measure');
  const isTime = (column) => ['s', 'GPU s'].includes(column.unit);
  const isMade = (column) => /sha256|version|device|host|n_threads|n_gpus|_at$|memory/.test(column.name);
  const isMetric = (column) => /^(val_|test_|metric)/.test(column.name) && !isTime(column);
  const config = columns.filter((column) => column.kind === 'config');
  return [
    tableOf('Config', [...config.filter((c) => c.factor), ...config.filter((c) => !c.factor)], row),
    el('div', {},
      tableOf('Outcome', measures.filter(isMetric), row),
      tableOf('Seconds', measures.filter((c) => isTime(c) && !isMetric(c)), row),
      tableOf('What was done', measures.filter((c) => !isMetric(c) && !isTime(c) && !isMade(c)), row),
      tableOf('Versions, hashes, machine', measures.filter((c) => !isMetric(c) && isMade(c)), row)),
  ];
}

function curvesOfTrial(id, row) {
  return Object.entries(MODES).filter(([stage]) => curveOf(stage, id)).map(([stage, mode]) => {
    const holder = el('div', {});
    const { value } = trials();
    const points = curveOf(stage, id);
    const name = `seed ${value('seed', row)}`;
    const isOk = value('status', row) === 'ok';
    const early = isOk ? null : earlyOf({ row, status: value('status', row), points }, stage);
    const line = { name, colour: 0, thin: [], early: early ? [early] : [],
      mean: isOk ? points.map((point) => ({ ...point, n: 1, low: null, high: null })) : [],
      about: `${points.length} epochs of this trial only${isOk ? '' : ', ' + early.text}.` };
    const chart = { series: [line], xLabel: mode.x, yLabel: mode.y({ task: value('task', row) }), about: `${mode.name}: ${line.about}` };
    return { holder, draw: () => drawChart(holder, chart, 'No value of this curve is finite.') };
  });
}

function siblings(row) {
  const { cells, value } = trials();
  const alike = cells.get(value('cell_id', row)).filter((other) => value('role', other) === value('role', row));
  const links = alike.slice(0, 40).map((other) => {
    const text = `seed ${value('seed', other)}: ${value('status', other)}`;
    return other === row ? el('strong', { 'aria-current': 'page' }, text) : el('a', { href: '#trial/' + encodeURIComponent(value('trial_id', other)) }, text);
  });
  if (alike.length > 40) links.push(el('span', {}, `and ${alike.length - 40} more`));
  return el('nav', { class: 'steps', 'aria-label': 'Trials of this cell' }, links);
}

function stateOf(row) {
  const { value } = trials();
  const status = value('status', row);
  const known = ownOf(cellData().marks, status);
  const [mark, meaning] = known || ['?', 'a status unknown to this version'];
  const look = known ? status.replace(' ', '-') : 'unknown';
  return el('p', { class: 'state' }, el('span', { class: 'sq ' + look, 'aria-hidden': 'true' }, mark), el('strong', {}, status), meaning);
}

function usesOf(id) {
  const { rows, value } = trials();
  const uses = rows.get(id).slice(1);
  if (!uses.length) return null;
  const cells = uses.map((row) => `cell ${value('cell_id', row)} (${value('role', row)}${value('space', row) ? ', ' + value('space', row) : ''})`);
  return el('p', { class: 'note' }, `The same trial also belongs to ${cells.join(', ')}.`);
}

function failureOf(row) {
  const { value } = trials();
  const error = value('error', row);
  const trace = value('traceback', row);
  return [
    error && el('h3', {}, 'Error'), error && el('pre', { tabindex: '0' }, error),
    trace && el('h3', {}, 'Traceback'), trace && el('pre', { tabindex: '0', class: 'traceback' }, trace),
  ];
}

function fillTrial(id) {
  const { rows, value } = trials();
  const back = el('p', {}, el('a', { href: '#report', class: 'back' }, '← Back to the report'));
  if (!rows.has(id)) {
    trialPage.replaceChildren(back, el('h2', { id: 'trial-title', tabindex: '-1' }, 'No such trial'), el('p', {}, `There is no trial ${id} in these tables.`));
    return;
  }
  const [row] = rows.get(id);
  const curves = curvesOfTrial(id, row);
  const named = [['task', 'task'], ['seed', 'seed'], ['role', 'role'], ['space', 'space'], ['cell_id', 'cell']];
  trialPage.replaceChildren(
    back,
    el('h2', { id: 'trial-title', tabindex: '-1' }, 'Trial ', el('code', {}, id)),
    stateOf(row),
    el('dl', { class: 'facts' }, named.filter(([name]) => value(name, row) !== null).map(([name, text]) =>
      el('div', {}, el('dt', {}, text), el('dd', {}, shownValue(value(name, row)))))),
    ...[usesOf(id)].filter(Boolean),
    siblings(row),
    ...failureOf(row).filter(Boolean),
    ...(curves.length ? [el('h3', {}, 'Curves')] : []),
    el('div', { class: 'columns' }, curves.map((curve) => curve.holder)),
    el('div', { class: 'columns' }, groupsOf(row)),
  );
  for (const curve of curves) curve.draw();
}

function showTrial(id) {
  if (!report.hidden) {
    left = { y: window.scrollY, hash: byId(location.hash.slice(1)) ? location.hash : lastHash, focus: document.activeElement };
  }
  report.hidden = true;
  document.body.dataset.view = 'trial';
  trialPage.hidden = false;
  fillTrial(id);
  window.scrollTo(0, 0);
  byId('trial-title').focus({ preventScroll: true });
}

function showReport() {
  const wasAway = report.hidden;
  report.hidden = false;
  delete document.body.dataset.view;
  trialPage.hidden = true;
  trialPage.replaceChildren();
  if (!wasAway) return;
  const isSame = left && [left.hash, '#report', ''].includes(location.hash);
  if (isSame) {
    window.scrollTo(0, left.y);
    if (left.focus && left.focus.isConnected) left.focus.focus({ preventScroll: true });
  } else if (byId(location.hash.slice(1))) {
    byId(location.hash.slice(1)).scrollIntoView();
  }
}

let lastHash = '';

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    return text; // typed by hand and not an id
  }
}

// The target of a link may be folded away.
function unfold(target) {
  const folded = target && target.closest('details:not([open])');
  if (!folded) return;
  folded.open = true;
  target.scrollIntoView();
}

function route() {
  const match = ROUTE.exec(location.hash);
  if (match) showTrial(decoded(match[1]));
  else showReport();
  if (!match) {
    lastHash = location.hash;
    unfold(byId(location.hash.slice(1)));
  }
}

window.addEventListener('hashchange', route);
if (location.hash) route();
