// Colours: as the system has them, or as the reader says.

const THEMES = ['system', 'light', 'dark'];

function setTheme(theme) {
  if (theme === 'system') document.documentElement.removeAttribute('data-theme');
  else document.documentElement.setAttribute('data-theme', theme);
  byId('theme').textContent = 'Colours: ' + theme;
}

function kept(theme) {
  // A browser may forbid storage to a file; then the choice lasts as long as the page.
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

// On paper nothing can be unfolded.
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
