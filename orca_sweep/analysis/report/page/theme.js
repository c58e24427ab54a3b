// Colours: those of the system, or those that the reader chooses.

const THEMES = ['system', 'light', 'dark'];

function setTheme(theme) {
  if (theme === 'system') document.documentElement.removeAttribute('data-theme');
  else document.documentElement.setAttribute('data-theme', theme);
  byId('theme').textContent = 'Colours: ' + theme;
}

function kept(theme) {
  // A browser may deny storage to a local file; then the choice lasts only until the page closes.
  try {
    if (theme) window.localStorage.setItem('orca-sweep-theme', theme);
    return window.localStorage.getItem('orca-sweep-theme');
  } catch (error) {
    return theme || null;
  }
}

let theme = THEMES.includes(kept()) ? kept() : 'system';
setTheme(theme);
byId('theme').hidden = false;
byId('theme').addEventListener('click', () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  kept(theme);
  setTheme(theme);
});

// Paper cannot be unfolded, so everything is open in print.
window.addEventListener('beforeprint', () => {
  for (const details of document.querySelectorAll('#report details:not([open])')) {
    details.open = true;
    details.dataset.printed = '';
  }
});
window.addEventListener('afterprint', () => {
  for (const details of document.querySelectorAll('details[data-printed]')) {
    details.open = false;
    delete details.dataset.printed;
  }
});
