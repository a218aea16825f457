'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const NARROW = 560;
  const hidden = new Set();
  const views = new Map(); // from a figure to its drawn chart
  const figures = [...document.querySelectorAll('figure[data-chart]')];

  function node(parent, tag, attributes = {}, text) {
    const svg = parent.namespaceURI?.endsWith('svg') || tag === 'svg';
    const element = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  // Charts: every one is a specification that the page holds.

  function chosen(name) {
    return document.querySelector(`input[name=${name}]:checked`)?.value;
  }

  function curve(workload, split = chosen('split'), axis = chosen('axis')) {
    const splits = data.curves[workload];
    const axes = splits[split] ?? Object.values(splits)[0];
    return axes[axis] ?? Object.values(axes)[0];
  }

  function specOf(kind, width) {
    const narrow = width < NARROW;
    const spec = kind === 'curves' ? curve(document.getElementById('curve-workload').value) : (narrow && data.narrow[kind]) || data.charts[kind];
    if (typeof spec.width !== 'number') return spec;
    return { ...spec, width, height: narrow && typeof spec.height === 'number' ? Math.round(0.75 * spec.height) : spec.height };
  }

  async function draw(figure) {
    const plot = figure.querySelector('.plot');
    const spec = specOf(figure.dataset.chart, plot.clientWidth);
    const options = { renderer: 'svg', actions: false, tooltip: { disableDefaultStyle: true } };
    const { view } = await vegaEmbed(plot, spec, options);
    views.get(figure)?.view.finalize();
    views.set(figure, { view, spec });
    hide(view);
    figure.dataset.drawn = 'true';
  }

  function hide(view) {
    if ('hidden' in view.getState().signals) view.signal('hidden', [...hidden]).run();
  }

  const drawAll = () => Promise.all(figures.map(draw));

  // Legends: a name switches the line of a submission in all charts.

  function legends() {
    document.querySelectorAll('.legend').forEach((legend) => {
      data.submissions.forEach(({ name, dash }, i) => {
        const button = node(legend, 'button', { type: 'button', 'aria-pressed': 'true', 'data-series': i });
        const key = node(button, 'svg', { viewBox: '0 0 26 10', 'aria-hidden': 'true' });
        node(key, 'line', { x1: 0, x2: 26, y1: 5, y2: 5, style: `stroke:var(--series${i});stroke-width:3`, 'stroke-dasharray': dash });
        button.append(name);
        button.addEventListener('click', () => toggle(name, i));
      });
    });
  }

  function toggle(name, i) {
    if (!hidden.delete(name)) hidden.add(name);
    document.querySelectorAll(`.legend [data-series="${i}"]`).forEach((button) => button.setAttribute('aria-pressed', String(!hidden.has(name))));
    views.forEach(({ view }) => hide(view));
  }

  // Zoom, for those who do not drag and scroll.

  function zoom({ view, spec }, how) {
    const names = spec.usermeta.zoom.map((field) => `zoom_${field}`);
    const ranges = ['x', 'y'].map((axis) => view.scale(axis).domain());
    names.forEach((name, i) => view.signal(name, zoomed(ranges[i], how, spec.usermeta.whole?.[i])));
    view.run();
  }

  function zoomed([low, high], how, whole) {
    if (how === 'reset') return null;
    if (how === 'all') return whole;
    const half = (how === 'in' ? 0.7 : 1 / 0.7) * (high - low) / 2;
    return [(low + high) / 2 - half, (low + high) / 2 + half];
  }

  // Downloads: a copy with every color written out, so that it looks the same elsewhere.

  async function download({ view }, name) {
    const style = getComputedStyle(document.documentElement);
    const back = '<rect width="100%" height="100%" fill="var(--back)"/>';
    const svg = (await view.toSVG()).replace(/<svg[^>]*>/, (tag) => tag + back)
      .replace(/var\((--[\w-]+)\)/g, (_, role) => style.getPropertyValue(role).trim());
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([svg], { type: 'image/svg+xml' }));
    link.download = `${name}.svg`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  figures.forEach((figure) => {
    figure.querySelectorAll('[data-zoom]').forEach((button) => button.addEventListener('click', () => zoom(views.get(figure), button.dataset.zoom)));
    figure.querySelector('.download').addEventListener('click', () => download(views.get(figure), figure.dataset.chart));
  });

  // Training curves: a workload, a split and an axis at a time.

  function curveControls() {
    const figure = document.querySelector('figure[data-chart=curves]');
    if (!figure) return;
    const select = document.getElementById('curve-workload');
    const workloads = Object.keys(data.curves);
    workloads.forEach((name) => node(select, 'option', { value: name }, name));
    select.closest('label').hidden = workloads.length < 2;
    const all = Object.values(data.curves);
    radios('split', [...new Set(all.flatMap(Object.keys))]);
    radios('axis', [...new Set(all.flatMap((splits) => Object.values(splits).flatMap(Object.keys)))]);
    [select, ...document.querySelectorAll('.controls input')].forEach((input) => input.addEventListener('change', () => draw(figure)));
    document.querySelectorAll('.controls input').forEach((input) => input.addEventListener('change', drawForPaper));
  }

  function radios(name, values) {
    const fieldset = document.getElementById(`curve-${name}`);
    values.forEach((value, i) => {
      const label = node(fieldset, 'label');
      const input = node(label, 'input', { type: 'radio', name, value });
      input.checked = i === 0;
      label.append(` ${value}`);
    });
  }

  // Paper: every workload has its curves, drawn when there is time, and details that matter are open.

  const PAPER = 680; // pixels, between the margins of a page
  const WIDE_PAPER = 1000;

  // Charts as wide as the sheet, so that their texts keep their size.
  function fitToPaper(fit) {
    views.forEach(({ view, spec }, figure) => {
      if (typeof spec.width !== 'number') return;
      view.width(!fit ? spec.width : figure.closest('.wide-page') ? WIDE_PAPER : PAPER).run();
    });
  }

  async function drawForPaper() {
    const prints = document.getElementById('curve-prints');
    for (const workload of prints ? Object.keys(data.curves) : []) {
      await new Promise((resolve) => { (window.requestIdleCallback ?? setTimeout)(resolve); });
      const spec = { ...curve(workload), title: workload, width: PAPER, height: 230 };
      await vegaEmbed(prints.querySelector(`[data-workload="${workload}"]`) ?? node(prints, 'div', { 'data-workload': workload }), spec, { renderer: 'svg', actions: false });
    }
    document.body.dataset.printable = 'true';
  }

  addEventListener('beforeprint', () => {
    fitToPaper(true);
    document.querySelectorAll('details.print:not([open])').forEach((one) => { one.open = true; one.dataset.opened = 'true'; });
  });
  addEventListener('afterprint', () => {
    fitToPaper(false);
    document.querySelectorAll('details[data-opened]').forEach((one) => { one.open = false; delete one.dataset.opened; });
  });

  // Everything once; again when the width changes.

  legends();
  curveControls();
  drawAll().then(() => { document.body.dataset.ready = 'true'; }).then(drawForPaper);
  let drawnWidth = innerWidth;
  addEventListener('resize', () => {
    if (innerWidth === drawnWidth) return;
    drawnWidth = innerWidth;
    drawAll();
  });
})();
