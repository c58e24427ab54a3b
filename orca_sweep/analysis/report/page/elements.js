// Elements and data. Text is only set as text: nothing from tables is read as HTML.

const NS = 'http://www.w3.org/2000/svg';

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? '' : value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(NS, tag), attributes, children);
const byId = (id) => document.getElementById(id);

function once(make) {
  let made;
  return () => (made === undefined ? (made = make()) : made);
}

const dataOf = (name) => once(() => JSON.parse(byId('data-' + name).textContent));
const cellData = dataOf('cells');
const curveData = dataOf('curves');

// The trials table: columns by name, each with a function from row to value.
const trials = once(() => {
  const { n, columns } = JSON.parse(byId('data-trials').textContent);
  const byName = new Map();
  for (const column of columns) {
    const at = 'same' in column ? () => column.same
      : 'each' in column ? (row) => column.each[row]
      : (row) => column.values[column.codes[row]];
    byName.set(column.name, { ...column, at });
  }
  const rows = new Map();
  const cells = new Map();
  for (let row = 0; row < n; row += 1) {
    push(rows, byName.get('trial_id').at(row), row);
    push(cells, byName.get('cell_id').at(row), row);
  }
  const value = (name, row) => {
    const column = byName.get(name);
    const held = column ? column.at(row) : null;
    return held === undefined ? null : held;
  };
  return { n, columns: byName, rows, cells, value };
});

// Names come from tables: a name like "constructor" must not match a property that every object has.
const ownOf = (record, name) => (Object.hasOwn(record, name) ? record[name] : null);

function push(map, key, value) {
  if (!map.has(key)) map.set(key, []);
  map.get(key).push(value);
}

document.documentElement.setAttribute('data-js', '');
