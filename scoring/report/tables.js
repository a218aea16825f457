'use strict';
// Tables whose headings sort their rows.
(() => {
  function value(row, column) {
    const cell = row.children[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    const found = text === 'miss' ? Infinity : Number(text.replace(/,/g, ''));
    return text === '' || Number.isNaN(found) ? text : found;
  }

  function sortBy(table, column) {
    const headings = [...table.tHead.rows[0].children];
    const down = headings[column].getAttribute('aria-sort') === 'ascending';
    headings.forEach((heading) => heading.removeAttribute('aria-sort'));
    headings[column].setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const body = table.tBodies[0];
    const order = (a, b) => (typeof a === 'number' && typeof b === 'number' ? (a > b) - (a < b) : String(a).localeCompare(String(b)));
    const rows = [...body.rows].sort((a, b) => order(value(a, column), value(b, column)) * (down ? -1 : 1));
    body.append(...rows);
  }

  document.querySelectorAll('table.sortable').forEach((table) => {
    [...table.tHead.rows[0].children].forEach((heading, column) => {
      if (table.tBodies[0].rows[0]?.children[column].classList.contains('number')) heading.classList.add('number');
      heading.querySelector('button').addEventListener('click', () => sortBy(table, column));
    });
  });
})();
