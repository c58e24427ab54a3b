// Files made from the data of the page, and text for the clipboard.

const downloadData = dataOf('downloads');

for (const button of document.querySelectorAll('button[data-file]')) {
  button.addEventListener('click', () => {
    const name = button.dataset.file;
    const address = URL.createObjectURL(new Blob([downloadData()[name]], { type: name.endsWith('.csv') ? 'text/csv' : 'text/x-tex' }));
    el('a', { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });
}

function copySelected(holder) {
  const range = document.createRange();
  range.selectNodeContents(holder);
  const selection = window.getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
  return document.execCommand('copy');
}

for (const button of document.querySelectorAll('button[data-copy]')) {
  const message = button.parentElement.querySelector('.copied');
  button.addEventListener('click', async () => {
    const holder = byId(button.dataset.copy);
    const text = [...holder.querySelectorAll('p')].map((paragraph) => paragraph.textContent).join('\n\n');
    try {
      await navigator.clipboard.writeText(text);
      message.textContent = 'Copied.';
    } catch (error) {
      // A page opened as a file may lack the permission; the old command still works there.
      message.textContent = copySelected(holder) ? 'Copied.' : 'Select the text above and copy it.';
    }
  });
}
