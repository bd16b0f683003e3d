// Where a pointer is over a chart, the figures beside the names are those of that step; all else works without.
'use strict';
for (const svg of document.querySelectorAll('.charts svg')) {
  const figure = svg.closest('figure'), kind = figure.dataset.kind, cursor = svg.querySelector('.cursor');
  const where = figure.querySelector('.where'), { from, to, left, right } = svg.dataset;
  const values = [...figure.querySelectorAll('[data-value]')];
  const ends = values.map((value) => value.textContent);
  const lines = [...svg.querySelectorAll('[data-points]')].map((path) => ({
    label: values.find((value) => value.dataset.value === path.dataset.series),
    points: path.dataset.points.split(' ').map((pair) => pair.split(':').map(Number)),
  }));
  const pixel = (step) => +left + (step - from) / (to - from) * (right - left);

  const move = (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const step = +from + (x - left) / (right - left) * (to - from);
    const nearest = lines.map(({ points }) => closest(points, step));
    const at = nearest.reduce((a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a)[0];
    lines.forEach(({ label }, i) => { label.textContent = written(nearest[i][1], kind); });
    where.textContent = `step ${at.toLocaleString('en')}`;
    cursor.setAttribute('x1', pixel(at));
    cursor.setAttribute('x2', pixel(at));
    cursor.style.visibility = 'visible';
  };
  const leave = () => {
    values.forEach((value, i) => { value.textContent = ends[i]; });
    where.textContent = '';
    cursor.style.visibility = 'hidden';
  };
  svg.addEventListener('pointermove', move);
  svg.addEventListener('pointerdown', move);
  svg.addEventListener('pointerleave', leave);
}

function closest(points, step) {
  let low = 0, high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= step) low = middle; else high = middle;
  }
  return step - points[low][0] <= points[high][0] - step ? points[low] : points[high];
}

function written(value, kind) {
  if (!Number.isFinite(value)) return 'not finite';
  if (kind === 'share') return `${(100 * value).toFixed(1)} %`;
  const size = Math.abs(value);
  if (value !== 0 && size < 1e-3) return value.toExponential(2);
  return value.toLocaleString('en', size < 1000 ? { maximumSignificantDigits: 4 } : { maximumFractionDigits: 0 });
}

addEventListener('beforeprint', () => {
  for (const folded of document.querySelectorAll('details')) folded.open = true;
});
