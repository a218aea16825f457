'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const names = data.submissions;
  const SVG = 'http://www.w3.org/2000/svg';
  const DASHES = ['', '7 4', '2 3', '9 3 2 3'];
  const color = (i) => `var(--s${i % 8})`;
  const dash = (i) => DASHES[Math.floor(i / 8) % DASHES.length];
  const hidden = new Set();
  const redraws = [];
  const tip = document.getElementById('tip');

  // Small helpers.

  function node(parent, tag, attributes = {}, text) {
    const element = parent.namespaceURI === SVG || tag === 'svg'
      ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== undefined && value !== '') element.setAttribute(name, value);
    }
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  function number(value) {
    if (value === null) return 'miss';
    if (value === 0) return '0';
    const size = Math.abs(value);
    if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
    if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
    return String(+value.toPrecision(3));
  }

  function ticks(low, high, count) {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough || 1));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
    const found = [];
    for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-6; t += step) found.push(+t.toPrecision(10));
    return found;
  }

  function showTip(event, text) {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 8))}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - box.height - 8))}px`;
  }
  const hideTip = () => { tip.hidden = true; };

  function chart(parent, width, height, title, description) {
    const svg = node(parent, 'svg', { class: 'chart', viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `${title}. ${description}` });
    node(svg, 'title', {}, title);
    node(svg, 'desc', {}, description);
    return svg;
  }

  // Downloads: a copy with every style written out, so that it looks the same elsewhere.

  const STYLES = ['fill', 'stroke', 'stroke-width', 'stroke-dasharray', 'opacity', 'font-size', 'font-family', 'font-weight', 'text-anchor'];
  function download(svg, name) {
    const copy = svg.cloneNode(true);
    const from = [svg, ...svg.querySelectorAll('*')];
    const to = [copy, ...copy.querySelectorAll('*')];
    from.forEach((element, i) => {
      const computed = getComputedStyle(element);
      for (const style of STYLES) to[i].setAttribute(style, computed.getPropertyValue(style));
      to[i].removeAttribute('class');
      to[i].removeAttribute('style');
    });
    const [, , width, height] = svg.getAttribute('viewBox').split(' ');
    copy.setAttribute('xmlns', SVG);
    copy.setAttribute('width', width);
    copy.setAttribute('height', height);
    const back = document.createElementNS(SVG, 'rect');
    for (const [key, value] of Object.entries({ width, height, fill: getComputedStyle(document.body).backgroundColor })) back.setAttribute(key, value);
    copy.prepend(back);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], { type: 'image/svg+xml' }));
    link.download = `${name}.svg`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function downloadButton(parent, svg, name) {
    const button = node(parent, 'button', { class: 'download', type: 'button', 'aria-label': `Download ${name} as SVG` }, 'Download SVG');
    button.addEventListener('click', () => download(svg, name));
  }

  // A chart of one line for each submission, with names that switch, and a cursor.

  function lineChart(options) {
    const { figure, legend, xs, rows, xLabel, yLabel, title, stepped, xTicks } = options;
    const width = Math.max(340, Math.min(900, figure.clientWidth || 900)), height = width < 600 ? 300 : 400;
    const left = 48, right = 12, top = 12, bottom = 44;
    const [low, high] = [xs[0], xs[xs.length - 1]];
    const x = (v) => left + (high > low ? (v - low) / (high - low) : 0.5) * (width - left - right);
    const y = (v) => top + (1 - v) * (height - top - bottom);
    figure.textContent = '';
    const best = names.map((name, i) => [rows[i][rows[i].length - 1] ?? 0, name]).sort((a, b) => b[0] - a[0])[0];
    const svg = chart(figure, width, height, title, `${names.length} lines; at the right edge ${best[1]} is highest with ${number(best[0])}. The table above holds the scores.`);
    for (const t of [0, 0.2, 0.4, 0.6, 0.8, 1]) {
      node(svg, 'line', { class: 'grid', x1: left, x2: width - right, y1: y(t), y2: y(t) });
      node(svg, 'text', { class: 'quiet', x: left - 8, y: y(t) + 4, 'text-anchor': 'end' }, t.toFixed(1));
    }
    for (const t of xTicks) node(svg, 'text', { class: 'quiet', x: x(t), y: height - bottom + 18, 'text-anchor': 'middle' }, number(t));
    node(svg, 'text', { x: (left + width - right) / 2, y: height - 6, 'text-anchor': 'middle' }, xLabel);
    node(svg, 'text', { x: 12, y: (top + height - bottom) / 2, transform: `rotate(-90 12 ${(top + height - bottom) / 2})`, 'text-anchor': 'middle' }, yLabel);
    const lines = names.map((name, i) => {
      if (hidden.has(i)) return null;
      let path = '';
      rows[i].forEach((value, j) => {
        if (value === null) return;
        path += path ? (stepped ? `H${x(xs[j]).toFixed(1)}V${y(value).toFixed(1)}` : `L${x(xs[j]).toFixed(1)} ${y(value).toFixed(1)}`) : `M${x(xs[j]).toFixed(1)} ${y(value).toFixed(1)}`;
      });
      const line = node(svg, 'path', { class: 'line', d: path || 'M0 0', style: `stroke:${color(i)}`, 'stroke-dasharray': dash(i), 'data-series': i });
      if (!stepped) {
        rows[i].forEach((value, j) => value !== null && node(svg, 'circle', { cx: x(xs[j]), cy: y(value), r: 3.5, style: `fill:${color(i)}` }));
      }
      return line;
    });
    const cursor = node(svg, 'line', { class: 'cursor', y1: top, y2: height - bottom, visibility: 'hidden' });
    svg.addEventListener('pointermove', (event) => {
      const box = svg.getBoundingClientRect();
      const at = (event.clientX - box.left) / box.width * width;
      let j = 0;
      xs.forEach((value, k) => { if (Math.abs(x(value) - at) < Math.abs(x(xs[j]) - at)) j = k; });
      const level = (event.clientY - box.top) / box.height * height;
      const shown = names.map((name, i) => [rows[i][j], i]).filter(([value, i]) => value !== null && !hidden.has(i)).sort((a, b) => b[0] - a[0]);
      if (!shown.length) return;
      const near = shown.reduce((a, b) => (Math.abs(y(b[0]) - level) < Math.abs(y(a[0]) - level) ? b : a));
      lines.forEach((line, i) => line && line.classList.toggle('hot', i === near[1]));
      cursor.setAttribute('x1', x(xs[j]));
      cursor.setAttribute('x2', x(xs[j]));
      cursor.setAttribute('visibility', 'visible');
      showTip(event, [`${xLabel}: ${number(xs[j])}`, ...shown.map(([value, i]) => `${i === near[1] ? '\u25B8 ' : ''}${names[i]}  ${value.toFixed(3)}`)].join('\n'));
    });
    svg.addEventListener('pointerleave', () => {
      hideTip();
      cursor.setAttribute('visibility', 'hidden');
      lines.forEach((line) => line && line.classList.remove('hot'));
    });
    downloadButton(figure, svg, title.toLowerCase().replace(/\W+/g, '_'));
    drawLegend(legend);
  }

  function drawLegend(legend) {
    const focused = legend.contains(document.activeElement) ? [...legend.children].indexOf(document.activeElement) : -1;
    legend.textContent = '';
    names.forEach((name, i) => {
      const button = node(legend, 'button', { type: 'button', 'aria-pressed': String(!hidden.has(i)), 'data-series': i });
      const key = node(button, 'svg', { viewBox: '0 0 26 10', 'aria-hidden': 'true' });
      node(key, 'line', { x1: 0, x2: 26, y1: 5, y2: 5, style: `stroke:${color(i)};stroke-width:3`, 'stroke-dasharray': dash(i) });
      button.append(name);
      button.addEventListener('click', () => {
        if (hidden.has(i)) hidden.delete(i); else hidden.add(i);
        redraws.forEach((redraw) => redraw());
      });
      if (i === focused) button.focus();
    });
  }

  const byId = (id) => document.getElementById(id);
  const drawProfile = () => lineChart({
    figure: byId('profile-chart'), legend: byId('profile-legend'), xs: data.profile.tau, rows: data.profile.share,
    xLabel: 'ratio to the fastest, at most', yLabel: 'share of workloads', title: 'Performance profiles', stepped: true,
    xTicks: ticks(1, data.max_ratio, 6),
  });
  const drawTuning = () => lineChart({
    figure: byId('tuning-chart'), legend: byId('tuning-legend'), xs: data.tuning.k, rows: data.tuning.score,
    xLabel: 'tuning trials in each study', yLabel: 'expected score', title: 'Tuning budget', stepped: false, xTicks: data.tuning.k,
  });
  redraws.push(drawProfile, drawTuning);

  // Heat map.

  function drawHeat() {
    const figure = byId('heat-chart');
    figure.textContent = '';
    const dark = matchMedia('(prefers-color-scheme: dark)').matches && !matchMedia('print').matches;
    const cellWidth = 70, cellHeight = 40, left = 160, top = 108;
    const width = left + cellWidth * data.workloads.length + 40, height = top + cellHeight * names.length + 8;
    const misses = data.heat.flat().filter((cell) => cell.miss).length;
    const svg = chart(figure, width, height, 'Time to target', `${names.length} submissions by ${data.workloads.length} workloads, in ${data.unit}; ${misses} of the cells are misses. The table below holds the figures.`);
    svg.setAttribute('width', width);
    svg.setAttribute('height', height);
    data.workloads.forEach((workload, w) => {
      const x = left + cellWidth * (w + 0.5);
      const label = node(svg, 'text', { class: workload.base ? 'quiet' : '', transform: `translate(${x - 20} ${top - 10}) rotate(-32)` }, workload.name.length > 22 ? `${workload.name.slice(0, 21)}\u2026` : workload.name);
      node(label, 'title', {}, `${workload.name}${workload.base ? ', held out' : ''}: ${workload.metric} ${workload.max ? 'at least' : 'at most'} ${workload.target}`);
    });
    names.forEach((name, s) => {
      const y = top + cellHeight * s;
      node(svg, 'text', { x: left - 8, y: y + 24, 'text-anchor': 'end' }, name.length > 22 ? `${name.slice(0, 21)}\u2026` : name);
      data.workloads.forEach((workload, w) => drawCell(svg, data.heat[s][w], left + cellWidth * w, y, cellWidth, cellHeight, dark, `${name}, ${workload.name}`));
    });
    downloadButton(figure, svg, 'time_to_target');
  }

  function drawCell(svg, cell, x, y, width, height, dark, where) {
    const ratio = cell.r ?? null;
    const share = ratio === null ? 0 : Math.max(0, Math.min(1, (ratio - 1) / (data.max_ratio - 1)));
    const lightness = dark ? 42 - share * 24 : 62 + share * 32; // far enough from the ink to be read
    const rect = node(svg, 'rect', { class: cell.miss ? 'cell miss' : 'cell', x, y, width, height, rx: 4 });
    let ink = '';
    if (!cell.miss) {
      rect.style.fill = `hsl(212 ${dark ? 60 : 70}% ${lightness}%)`;
      ink = dark ? '#ffffff' : '#0b1f38';
    } else {
      node(svg, 'path', { class: 'cross', d: `M${x + 4} ${y + 4}L${x + width - 4} ${y + height - 4}M${x + width - 4} ${y + 4}L${x + 4} ${y + height - 4}` });
    }
    const style = ink ? `fill:${ink}` : '';
    const short = { budget: 'budget', diverged: 'diverged', no_data: 'no data', damaged: 'damaged', invalid: 'invalid', not_run: 'not run', slow: 'too slow', held_out: 'held-out', base: 'base' };
    node(svg, 'text', { x: x + width / 2, y: y + 17, 'text-anchor': 'middle', style, 'font-weight': 600 }, cell.t === null ? '\u2715' : number(cell.t));
    node(svg, 'text', { x: x + width / 2, y: y + 32, 'text-anchor': 'middle', style }, cell.miss ? short[cell.miss] : `\u00D7${ratio.toFixed(2)}`);
    const interval = cell.t === null || cell.low === null ? '' : `\n${number(cell.low)} to ${number(cell.high)}${cell.cov ? ` (coverage ${cell.cov})` : ''}`;
    const text = `${where}\n${cell.t === null ? 'miss' : `${number(cell.t)} ${data.unit}`}${interval}${cell.miss ? `\n${data.reasons[cell.miss]}` : ''}`;
    const over = node(svg, 'rect', { x, y, width, height, style: 'fill:transparent' });
    node(over, 'title', {}, text);
    over.addEventListener('pointermove', (event) => showTip(event, text));
    over.addEventListener('pointerleave', hideTip);
  }

  // Training curves: a panel for each submission.

  const select = byId('curve-workload');
  data.workloads.forEach((workload, w) => node(select, 'option', { value: w }, workload.name));

  function drawCurves() {
    const figure = byId('curve-chart');
    figure.textContent = '';
    const workload = data.workloads[select.value || 0];
    const byStep = document.querySelector('input[name=curve-axis]:checked').value === 'step';
    const curves = data.curves[workload.name];
    const range = curveRange(curves, workload, byStep);
    const panels = node(figure, 'div', { class: 'panels' });
    names.forEach((name, s) => {
      const panel = node(panels, 'div');
      const svg = drawPanel(panel, name, s, curves[s], workload, byStep, range);
      downloadButton(panel, svg, `curves_${workload.name}_${name}`);
    });
  }

  function curveRange(curves, workload, byStep) {
    const values = curves.flat().flatMap((trial) => trial[4].slice(1)).filter((v) => v !== null).sort((a, b) => a - b);
    const at = (share) => values[Math.round(share * (values.length - 1))] ?? workload.target;
    let low = workload.max ? at(0.05) : at(0);
    let high = workload.max ? at(1) : at(0.93);
    low = Math.min(low, workload.target);
    high = Math.max(high, workload.target);
    const margin = (high - low || Math.abs(high) || 1) * 0.06;
    const ends = curves.flat().map((trial) => trial[byStep ? 3 : 2].at(-1) ?? 0);
    return { low: low - margin, high: high + margin, end: Math.max(1e-9, ...ends) };
  }

  function drawPanel(panel, name, s, trials, workload, byStep, range) {
    const width = 290, height = 190, left = 46, right = 8, top = 24, bottom = 34;
    const x = (v) => left + v / range.end * (width - left - right);
    const y = (v) => Math.max(top - 40, Math.min(height + 40, top + (range.high - v) / (range.high - range.low) * (height - top - bottom)));
    const reached = trials.filter((trial) => trial[1]).length;
    const svg = chart(panel, width, height, `${name} on ${workload.name}`, `${workload.metric} against ${byStep ? 'steps' : 'seconds'}; ${reached} of ${trials.length} trials reach ${workload.target}.`);
    const clip = `clip-${s}`;
    node(node(node(svg, 'defs'), 'clipPath', { id: clip }), 'rect', { x: left, y: top, width: width - left - right, height: height - top - bottom });
    node(svg, 'text', { x: left, y: 14, 'font-weight': 600 }, name);
    node(svg, 'text', { class: 'quiet', x: width - right, y: 14, 'text-anchor': 'end' }, trials.length ? `${reached} of ${trials.length}` : 'no curves');
    for (const t of ticks(range.low, range.high, 4)) {
      node(svg, 'line', { class: 'grid', x1: left, x2: width - right, y1: y(t), y2: y(t) });
      node(svg, 'text', { class: 'quiet', x: left - 5, y: y(t) + 4, 'text-anchor': 'end' }, number(t));
    }
    for (const t of ticks(0, range.end, 3)) node(svg, 'text', { class: 'quiet', x: x(t), y: height - bottom + 15, 'text-anchor': width - x(t) < 24 ? 'end' : 'middle' }, number(t));
    node(svg, 'text', { class: 'quiet', x: width - right, y: height - 4, 'text-anchor': 'end' }, byStep ? 'steps' : 'seconds');
    node(svg, 'text', { class: 'quiet', x: 2, y: height - 4 }, workload.metric);
    const group = node(svg, 'g', { 'clip-path': `url(#${clip})` });
    for (const trial of [...trials].sort((a, b) => a[1] - b[1])) {
      const [label, hit, times, steps, values] = trial;
      let path = '';
      (byStep ? steps : times).forEach((v, j) => { if (values[j] !== null && v !== null) path += `${path ? 'L' : 'M'}${x(v).toFixed(1)} ${y(values[j]).toFixed(1)}`; });
      if (!path) continue;
      const line = node(group, 'path', { class: hit ? 'trial' : 'trial lost', d: path, style: hit ? `stroke:${color(s)}` : '' });
      line.addEventListener('pointermove', (event) => { line.classList.add('hot'); showTip(event, `${name}\n${label}${hit ? '' : '\ndoes not reach the target'}`); });
      line.addEventListener('pointerleave', () => { line.classList.remove('hot'); hideTip(); });
    }
    node(svg, 'line', { class: 'target', x1: left, x2: width - right, y1: y(workload.target), y2: y(workload.target) });
    return svg;
  }

  select.addEventListener('change', drawCurves);
  document.querySelectorAll('input[name=curve-axis]').forEach((input) => input.addEventListener('change', drawCurves));

  // Tables.

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
  document.querySelectorAll('.swatch').forEach((swatch) => { swatch.style.background = color(+swatch.dataset.series); });

  // Everything once; again when the colours change.

  const drawAll = () => { drawProfile(); drawTuning(); drawHeat(); drawCurves(); };
  drawAll();
  let drawnWidth = innerWidth;
  addEventListener('resize', () => {
    if (innerWidth === drawnWidth) return;
    drawnWidth = innerWidth;
    redraws.forEach((redraw) => redraw());
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawHeat);
  matchMedia('print').addEventListener('change', drawHeat);
  document.body.dataset.ready = 'true';
})();
