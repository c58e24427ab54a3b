// Sorting and filtering of tables, and the arrow keys in the matrix.

function sortKey(cell, isNumber) {
  if (!isNumber) return cell.textContent;
  return cell.dataset.v ? Number(cell.dataset.v) : NaN;
}

function compare(a, b, isNumber) {
  return isNumber ? a - b : a.localeCompare(b, 'en', { numeric: true });
}

function sortTable(table, head, position) {
  const isNumber = head.hasAttribute('data-number');
  const down = head.getAttribute('aria-sort') === 'ascending';
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, key: sortKey(row.cells[position], isNumber) }));
  const missing = (key) => isNumber && Number.isNaN(key);
  rows.sort((a, b) => {
    // Missing values come last in both directions.
    if (missing(a.key) || missing(b.key)) return missing(a.key) - missing(b.key);
    return down ? compare(b.key, a.key, isNumber) : compare(a.key, b.key, isNumber);
  });
  body.append(...rows.map(({ row }) => row));
  for (const other of table.tHead.querySelectorAll('th[aria-sort]')) other.setAttribute('aria-sort', 'none');
  head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
}

for (const table of document.querySelectorAll('table[data-sortable]')) {
  [...table.tHead.rows[0].cells].forEach((head, position) => {
    if (head.classList.contains('plain')) return;
    const button = el('button', { type: 'button' }, head.textContent);
    head.replaceChildren(button);
    head.setAttribute('aria-sort', 'none');
    button.addEventListener('click', () => sortTable(table, head, position));
  });
}

// Filters ------------------------------------------------------------------------------------------

const filters = document.querySelector('.filters');

function filterEffects() {
  const text = byId('effects-text').value.trim().toLowerCase();
  const task = byId('effects-task') ? byId('effects-task').value : '';
  const word = byId('effects-word').value;
  const rows = [...byId('effects-table').tBodies[0].rows];
  let shown = 0;
  for (const row of rows) {
    const fits = (!task || row.dataset.task === task) && (!word || row.dataset.word === word)
      && (!text || row.textContent.toLowerCase().includes(text) || row.dataset.task.toLowerCase().includes(text));
    row.hidden = !fits;
    shown += fits;
  }
  byId('effects-count').textContent = `${shown} of ${rows.length} comparisons shown`;
}

if (filters) {
  filters.hidden = false;
  filters.addEventListener('input', filterEffects);
  filters.addEventListener('reset', () => setTimeout(filterEffects));
  filters.addEventListener('submit', (event) => event.preventDefault());
  filterEffects(); // a browser may have kept the values of the fields
}

// Matrix -------------------------------------------------------------------------------------------

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function neighbour(square, [down, right]) {
  const cell = square.parentElement;
  const inRun = cell.classList.contains('run');
  if (inRun && right) return right > 0 ? square.nextElementSibling : square.previousElementSibling;
  let row = cell.parentElement;
  let position = cell.cellIndex;
  for (;;) {
    if (down) row = down > 0 ? row.nextElementSibling : row.previousElementSibling;
    else position += right;
    const next = row && row.cells[position];
    if (!next) return null;
    const neighbouring = next.querySelector('a.sq');
    if (neighbouring) return neighbouring;
  }
}

for (const matrix of document.querySelectorAll('.matrix')) {
  // The tab key stops once for all squares; thousands of stops would block the keyboard.
  const squares = matrix.querySelectorAll('a.sq');
  squares.forEach((square, position) => square.setAttribute('tabindex', position ? -1 : 0));
  let current = squares[0];
  matrix.addEventListener('focusin', (event) => {
    if (!event.target.matches('a.sq')) return;
    current.setAttribute('tabindex', -1);
    current = event.target;
    current.setAttribute('tabindex', 0);
  });
  matrix.addEventListener('keydown', (event) => {
    const step = STEPS[event.key];
    if (!step || !event.target.matches('a.sq')) return;
    event.preventDefault();
    const next = neighbour(event.target, step);
    if (next) next.focus();
  });
}
