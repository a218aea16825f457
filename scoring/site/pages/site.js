
// Names that switch the lines of a submission on and off, in all pictures of a page.
document.querySelectorAll('.legend [data-series]').forEach((button) => {
  const color = `var(--series${button.dataset.series})`;
  button.addEventListener('click', () => {
    const shown = button.getAttribute('aria-pressed') !== 'true';
    button.setAttribute('aria-pressed', String(shown));
    document.querySelectorAll('.still svg *').forEach((mark) => {
      if (mark.getAttribute('stroke') === color || mark.getAttribute('fill') === color) mark.style.display = shown ? '' : 'none';
    });
  });
});

// Paper shows what a reader may fold away.
addEventListener('beforeprint', () => {
  document.querySelectorAll('details.print:not([open])').forEach((one) => { one.open = true; one.dataset.opened = 'true'; });
});
addEventListener('afterprint', () => {
  document.querySelectorAll('details[data-opened]').forEach((one) => { one.open = false; delete one.dataset.opened; });
});
